"""Groups of keys that queries name: which predicates speak of some, and what the planner makes of them."""

from __future__ import annotations

import pytest

import patterndsl as pd
from patterndsl.ir.expr import as_expr
from patterndsl.ir.normal import TOKENS, token_terms
from patterndsl.ir.resolve import at_length
from patterndsl.plan.build import questions
from patterndsl.plan.choose import GROUPED, PLAIN, Shape, misfit
from patterndsl.plan.cost import Workload
from patterndsl.plan.grouping import grouping_of, pairs
from patterndsl.plan.plan import Grouping, Membership, PartChoice, Plan
from patterndsl.plan.rates import rates_of


@pytest.mark.parametrize(
    ("text", "choices", "groups", "size"),
    [
        ("select(2, 8)", 2, 13, 8),
        ("select(1, 8)", 1, 13, 8),
        ("select(20, 1)", 20, 100, 1),
        ('select(3, 8, per="block")', 3, 13, 8),
        ("causal & select(2, 8)", 2, 13, 8),
        ("lsh(6)", 1, 6, None),
        ("local(9) & lsh(6)", 1, 6, None),
    ],
)
def test_groups(text: str, choices: int, groups: int, size: int | None) -> None:
    node = at_length(pd.parse(text).module.main, 100)
    found = grouping_of(token_terms(node, as_expr(100)).keep, 100)
    assert found is not None
    grouping, rest = found
    assert isinstance(grouping, Grouping)
    assert (grouping.choices, grouping.groups, grouping.size) == (choices, groups, size)
    assert not rest.facts() and rest.names() <= {"q", "k"}


@pytest.mark.parametrize("count", [2, 16, 17])
def test_groups_that_take_queries_and_keys(count: int) -> None:
    spec = pd.parse(
        f"input mu: centroids\npattern main = causal & local(9) & cluster({count}, 6, centroids=mu)"
    )
    found = grouping_of(token_terms(at_length(spec.module.main, 100), as_expr(100)).keep, 100)
    assert found is not None
    grouping, rest = found
    assert isinstance(grouping, Membership) and grouping.groups == count
    assert not rest.facts() and rest.names() == {"q", "k"}
    assert pairs(grouping, 100, 100, 4, 8) == count * 8 * 8


@pytest.mark.parametrize(
    "text",
    ["causal", "select(mass=0.5, block=8)", "vertical_slash(3, 4)", "~lsh(4)", "lsh(4) | local(3)",
     "select(2, 8) | select(2, 4)", "lsh(4, rounds=2)", "input doc: token\npattern main = same(doc)"],
)  # fmt: skip
def test_no_groups(text: str) -> None:
    node = at_length(pd.parse(text).module.main, 100)
    assert grouping_of(token_terms(node, as_expr(100)).keep, 100) is None


def layouts(text: str, n: int = 16384, **options: int) -> tuple[list[str], Plan]:
    plan = pd.compile(text, backend="xla").plan(n, num_heads=4, **options)
    (branch,) = plan.groups[0].branches
    return [p.layout.name for p in branch.parts], plan


def test_work_follows_the_choice() -> None:
    """Not the n² tiles that it may fall on; and no more than half as much again."""
    names, plan = layouts("select(8, 64)")
    assert names == [GROUPED] and "1 part: grouped " in repr(plan)
    assert plan.stats().computed <= 1.5 * 4 * 16384 * 8 * 64
    text = plan.explain()
    assert "each query meets 8 groups that it chose" in text and "blocks of 64 keys" in text
    names, plan = layouts("lsh(64)")
    assert names == [GROUPED] and plan.stats().computed <= 2.5 * 4 * 16384**2 / 64
    assert "sorted" in plan.explain()


def test_members_go_apart() -> None:
    """Each with groups of its own, and what has none in its tiles; a pair that two keep is in one part."""
    names, plan = layouts("causal & (select(7, 64, among=causal - chunked(64)) | chunked(64))")
    assert names == [PLAIN, GROUPED]
    names, plan = layouts("causal & (lsh(64, rounds=2) | self)")
    assert names == [PLAIN, GROUPED, GROUPED]
    last = plan.groups[0].branches[0].parts[2].sources[0]
    assert last.pool is TOKENS
    assert last.term.keep.facts(), "what the first round found is not found again"


def test_small_lengths_and_unknown_positions_come_as_they_are() -> None:
    assert layouts("select(2, 8)", n=64)[0] == [PLAIN]
    plan = pd.compile("select(2, 64)", backend="xla")._plan(4096, 4096, None, 1, Workload())
    assert [p.layout.name for p in plan.groups[0].branches[0].parts] == ["identity"]


def test_pairs_count_the_ends_of_groups() -> None:
    found = grouping_of(
        token_terms(at_length(pd.parse("select(2, 8)").module.main, 64), as_expr(64)).keep, 64
    )
    assert found is not None
    # 128 choices on 8 groups of 8 keys: 16 for each, one tile and on average another half
    assert pairs(found[0], 64, 64, 16, 8) == (8 + 4) * 16 * 8


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([((0, 1), False, GROUPED), ((2,), True, PLAIN)], "no groups of tokens"),
        ([((0, 1), True, PLAIN), ((2,), False, GROUPED)], "no groups of tokens"),
        ([(None, True, GROUPED)], "summaries have no layout"),
        ([((0,), False, GROUPED), ((1,), False, GROUPED), ((2,), True, PLAIN)], ""),
    ],
)
def test_what_has_no_groups_is_not_run_so(
    parts: list[tuple[tuple[int, ...] | None, bool, str]], why: str
) -> None:
    """However a stored choice came to ask for it."""
    main = pd.parse("lsh(4) | select(2, 8) | local(3) | pool(8)").module.main
    (question,) = questions(at_length(main, 64), Shape(64, 64, 0), None, Workload(), rates_of("cpu", "xla"))
    assert len(question.members) == 3
    found = misfit(question, tuple(PartChoice(*part, 16, 16) for part in parts))
    assert why in found and bool(found) == bool(why)


def test_the_native_kernel_runs_what_has_groups_by_them_whatever_tiles_would_cost() -> None:
    workload = Workload(backend="cpu_native")
    assert pd.compile("lsh(2, rounds=2)").plan(2000, workload=workload).facts_by_tiles == ()
    assert pd.compile("select(mass=0.5, block=8)").plan(2000, workload=workload).facts_by_tiles
