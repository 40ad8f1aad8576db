"""Plans against the dense meaning: what a plan visits, and how often it counts, is what the pattern keeps."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Mix, Node
from patterndsl.ir.normal import TOKENS, lift_mix
from patterndsl.ir.resolve import at_length, pick_head
from patterndsl.patterns import builtins
from patterndsl.plan import bands, build, rows
from patterndsl.plan.choose import PLAIN, Shape, in_tiles
from patterndsl.plan.cost import Workload
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import BranchPlan, Plan, Segment
from patterndsl.plan.rates import rates_of
from patterndsl.spec import Spec
from tests.plan.replay import replay
from tests.strategies import fact_values


@pytest.fixture(autouse=True)
def fresh_plans() -> Iterator[None]:
    """Tests change the planner's constants; no plan may be left over."""
    build.forget_plans()
    yield
    build.forget_plans()


def plan_of(node: Node, n: int, n_q: int, offset: int | None, tile: tuple[int, int] = (8, 8)) -> Plan:
    """Undivided, as it comes."""
    bound = at_length(node, n)
    asked = build.questions(bound, Shape(n, n_q, offset), tile, Workload(), rates_of("cpu", "xla"))
    given = (tuple(in_tiles(q, ((None, PLAIN),), tile) for q in asked),)
    sizes = {"n": n, "n_q": n_q, "q_offset": offset, "num_heads": 1, "block_sizes": tile}
    return build.build_plan([((0,), bound)], **sizes, given=given)


def check(plan: Plan, offset: int, inputs: dict[str, np.ndarray] | None = None) -> None:
    """The replayed plan is the dense meaning of each group's pattern."""
    q, given = np.arange(plan.n_q) + offset, inputs or {}
    for group in plan.groups:
        inputs = {**given, **fact_values(group.node, plan.n)}
        mixed = lift_mix(group.node)
        parts = mixed.branches if isinstance(mixed, Mix) else (mixed,)
        assert len(parts) == len(group.branches)
        for i, part in enumerate(parts):
            found, expected = replay(plan, group, i, offset, inputs), dense(part, q, plan.n, inputs)
            for pool in found.keys() | expected.keys():
                nothing = np.zeros((plan.n_q, pool.chunks(plan.n)), np.int32)
                np.testing.assert_array_equal(found.get(pool, nothing), expected.get(pool, nothing))


def _spec(text: str) -> Spec:
    return pd.parse(f"input doc: token\ninput mu: centroids\npattern main = {text}")


# -- random patterns -------------------------------------------------------------------------------------

ATOMS = [
    "full", "causal", "self", "none", "local({a})", "local(left={a}, right={b})", "dilated({a}, {b})",
    "global([0, -1])", "columns([::{a} + 3])", "rows([2:2 + {b}])", "sinks({a})", "strided({b} + 2)",
    "fixed(block={a} + 2, summary=1)", "chunked({a} + 3, back={b} // 3)", "segments(4 * {a}, ({b} + 1) // 2)",
    "logsparse({b} + 1)", "butterfly({a})", "random(({b} + 2) // 3, block={a}, seed={b})", "same(doc)",
    "shift(local({a}), {b} - 4)", "transpose(columns([0]))", "blocks(logsparse, ({b} + 1) // 2)",
    "where(q, k: (q * 3 + k) % ({a} + 5) < {b} % 4)", "where(q, k: abs(q // {a} - k // {b}) <= 2)",
    "where(q, k: doc[q] <= doc[k] and k <= q)", "where(q, k: abs(doc[q] - 2 * doc[k]) < 3)",
    "select({a}, block={b}, among=causal)", "select(mass=0.5, block={b}, per=\"block\")",
    "vertical_slash({a}, {b})", "lsh(2 * {a}, rounds=2)",
]  # fmt: skip
SUMMARIES = [
    "hierarchical({a} // 3 + 2, window={b} // 4, leaf={b})", "hierarchical(2, levels={a} // 5 + 1)",
    "tree({a} // 3 + 2)",
]  # fmt: skip
small = st.integers(1, 9)


def _atom(texts: list[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda text, a, b: text.format(a=a, b=b), st.sampled_from(texts), small, small)


tokens = st.recursive(
    _atom(ATOMS),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("||&&-+^"), inner),
        st.builds("~{}".format, inner),
    ),
    max_leaves=4,
)
summaries = _atom(SUMMARIES)
patterns = st.one_of(
    tokens,
    st.builds("{} | {}".format, tokens, summaries),
    st.builds("{} & {}".format, tokens, summaries),
    st.builds("{} & ({} | {})".format, tokens, tokens, summaries),
    st.builds("({} + {}) & {}".format, tokens, summaries, tokens),
    st.builds("mix({}, {})".format, tokens, tokens),
)


@settings(max_examples=250, derandomize=True, deadline=None)
@given(
    patterns,
    st.one_of(st.integers(1, 60), st.integers(1, 300)),
    st.sampled_from(["square", "last", "short", "long", "unknown"]),
    st.sampled_from([(4, 4), (8, 8), (16, 4), (4, 16), (8, 5), (16, 16), (3, 8)]),
    st.sampled_from([16, 64, 4096]),
    st.sampled_from([1, 4, 1024]),
    st.integers(0, 2**16),
)
def test_a_plan_is_its_pattern(
    text: str, n: int, queries: str, tile: tuple[int, int], one_shot: int, band: int, seed: int
) -> None:
    n_q = {"square": n, "last": 1, "short": max(n // 3, 1), "long": n + 7, "unknown": max(n // 2, 1)}[queries]
    offset = n - n_q if queries != "short" else n // 4
    node = at_length(_spec(text).module.main, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "ONE_SHOT", one_shot)
        patch.setattr(bands, "LEAST_ROWS", band)
        patch.setattr(rows, "STEP", 16)
        build.forget_plans()
        plan = build.build_plan(
            [((0,), node)], n=n, n_q=n_q, q_offset=None if queries == "unknown" else offset,
            num_heads=1, block_sizes=tile,
        )  # fmt: skip
    doc = np.sort(np.random.default_rng(seed).integers(0, 4, n))
    check(plan, offset, {"doc": doc})
    assert sum(len(p.rows) for b in plan.groups[0].branches for p in b.parts) <= rows.MOST_GROUPS * 2


EXAMPLES = sorted({text for cls in builtins().values() for text in cls.examples})


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.parametrize("wrapped", ["{}", "causal & {}", "{} | local(2)"])
def test_every_builtin(text: str, wrapped: str) -> None:
    spec = _spec(wrapped.format(text))
    n = 256 if "[4, 8, 8]" in text else 64  # places on the example's grid
    for tile in ((8, 8), (16, 4), (64, 64)):
        check(plan_of(spec.module.main, n, n, 0, tile), 0, {"doc": np.arange(n) // 13})


def test_heads_with_one_pattern_share_a_group() -> None:
    spec = pd.parse("heads { 0:2 => local(4); 2 => causal; _ => local(4) }")
    plan = build.build_plan(
        [((h,), at_length(pick_head(spec.module.main, h, 4), 40)) for h in range(4)],
        n=40,
        n_q=40,
        q_offset=0,
        num_heads=4,
    )
    assert [g.heads for g in plan.groups] == [(0, 1, 3), (2,)]
    check(plan, 0)


# -- structure -------------------------------------------------------------------------------------------


def _groups(text: str, n: int, tile: int = 128, offset: int | None = 0, n_q: int | None = None) -> list:
    plan = plan_of(pd.parse(text).module.main, n, n_q or n, offset, (tile, tile))
    (part,) = plan.groups[0].branches[0].parts
    return list(part.rows)


def test_the_interior_of_a_window_is_one_slice_with_predicates_at_its_ends() -> None:
    interior, edges = _groups("causal & local(512)", 8192)
    (window,) = interior.segments
    assert window.contiguous and window.partial == (True, False, False, False, True) and window.step == 0
    assert len(interior.tiles) == 60 and edges.tiles.tolist() == [0, 1, 2, 3]


def test_a_row_of_global_tokens_does_not_widen_the_others() -> None:
    groups = _groups("local(256) | global(tokens=[0])", 16384)
    loops = [g for g in groups if any(s.step for s in g.segments)]
    assert [g.tiles.tolist() for g in loops] == [[0]]
    assert all(s.width <= 6 for g in groups if g is not loops[0] for s in g.segments)


def test_causal_is_one_loop_over_full_blocks() -> None:
    (group,) = _groups("causal", 8192)
    full, diagonal = group.segments
    assert full.step and full.contiguous and full.counts.tolist() == list(range(64)) and not any(full.partial)
    assert diagonal.partial == (True,) and diagonal.counts.tolist() == [1] * 64


def test_rows_of_many_lengths_are_looped_over_rather_than_padded() -> None:
    (group,) = _groups("causal", 4096)
    assert group.segments[0].step == 4 and group.segments[0].counts.tolist() == list(range(32))


def test_a_last_block_that_is_not_whole_is_partial() -> None:
    (group,) = _groups("full", 100, tile=32)
    (row,) = group.segments
    assert row.partial == (False, False, False, True)


def test_counts_other_than_one_make_a_block_partial() -> None:
    for group in _groups("local(40) + local(40)", 200, tile=8):
        assert all(all(s.partial) for s in group.segments)
    (group,) = _groups("full + none", 64, tile=8)
    assert not any(group.segments[0].partial)


def test_rows_that_keep_nothing_are_in_no_group() -> None:
    (group,) = _groups("rows([3])", 64, tile=8)
    assert group.tiles.tolist() == [0]
    assert _groups("none", 64) == []


def test_unknown_positions_have_one_row_for_all_tiles() -> None:
    (group,) = _groups("causal & local(64)", 4096, offset=None)
    (row,) = group.segments
    assert group.tiles.tolist() == list(range(32)) and row.counts.tolist() == [32] * 32 and all(row.partial)


def test_a_level_that_sees_everything_is_tiled() -> None:
    plan = plan_of(pd.parse("hierarchical(2, levels=1)").module.main, 4096, 4096, 0, (64, 64))
    (part,) = plan.groups[0].branches[0].parts
    summaries = {s.block for g in part.rows for s in g.segments if part.sources[s.source].pool is not TOKENS}
    assert summaries == {64}


def test_few_groups_whatever_the_pattern() -> None:
    for text in (
        "random(3, block=8) & causal",
        "local(64) | logsparse | global([5, 900])",
        "butterfly(4) | local(9)",
        "causal & (local(33) | hierarchical(3, leaf=5) | random(2, block=16))",
    ):
        assert len(_groups(text, 2048, tile=16)) <= rows.MOST_GROUPS


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("windows([32, 32], [7, 5], shift=[3, 2])", 1024),
        ("butterfly(20)", 1024),
        ("random(2, block=20)", 900),
    ],
)
def test_a_closer_look_finds_the_tiles_that_keep_nothing(text: str, n: int) -> None:
    plan = plan_of(pd.parse(text).module.main, n, n, 0, (16, 16))
    kept = dense(plan.groups[0].node, np.arange(n), n)[TOKENS]
    kept = np.pad(kept, (0, -n % 16)).reshape(-(-n // 16), 16, -(-n // 16), 16)
    stats = plan.stats()
    assert stats.full_blocks + stats.partial_blocks == np.any(kept, axis=(1, 3)).sum()


def test_far_powers_and_wide_windows_leave_the_predicate() -> None:
    plan = plan_of(pd.parse("logsparse & local(10**12)").module.main, 64, 64, 0)
    (source,) = plan.groups[0].branches[0].parts[0].sources
    assert "1000000000000" not in str(source.term.keep) and str(source.term.keep).count("==") == 7


def test_length_is_no_obstacle() -> None:
    """A million tokens: memory and groups as for a thousand."""
    text = "causal & (local(512) | global(tokens=[0:4]) | hierarchical(factor=4))"
    plan = plan_of(pd.parse(text).module.main, 2**20, 2**20, 0, (128, 128))
    stats = plan.stats()
    assert stats.table_bytes < 200 * 2**13 and stats.row_groups <= 2
    assert stats.computed < 2**20 * 1024


# -- the oracle itself -------------------------------------------------------------------------------------


def _changed(plan: Plan, change: Callable[[Segment], Segment]) -> Plan:
    """The plan with one segment, the first of its first row group, changed."""
    (group,) = plan.groups
    ((part,),) = (b.parts for b in group.branches)
    rows_ = part.rows[0]
    segments = (change(rows_.segments[0]), *rows_.segments[1:])
    part = replace(part, rows=(replace(rows_, segments=segments), *part.rows[1:]))
    return replace(plan, groups=(replace(group, branches=(BranchPlan((part,)),)),))


@pytest.mark.parametrize(
    "fault",
    [
        lambda s: replace(s, partial=(False,) * s.width),  # no predicate where one is needed
        lambda s: replace(s, starts_by_row=Periodic.of(s.starts + s.block)),  # the wrong blocks
        lambda s: replace(
            s, counts_by_row=Periodic.of(np.minimum(s.counts, s.width - 1))
        ),  # one block forgotten
        lambda s: replace(s, starts_by_row=Periodic.of(s.starts[::-1])),  # rows exchanged
    ],
)
def test_replaying_catches_a_faulty_plan(fault: Callable[[Segment], Segment]) -> None:
    plan = plan_of(pd.parse("causal & local(20)").module.main, 128, 128, 0)
    check(_changed(plan, lambda s: s), 0)
    with pytest.raises(AssertionError):
        check(_changed(plan, fault), 0)


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n", "code"),
    [
        ("causal & local(128)", 10**12, "E503"),
        ("strided(512)", 2**22, "E503"),
        ("where(q, k: q * 2**16 + k < 9)", 2**16, "E309"),
        ("where(q, k: doc[q] * 100 < doc[k])", 64, "E309"),
        ("where(q, k: q % k == 0)", 64, "E303"),
        ("where(q, k: k // (q - 5) == 0)", 64, "E303"),
    ],
)
def test_what_cannot_be_planned_is_refused(text: str, n: int, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(_spec(text).module.main, n, n, 0, (128, 128))
    assert caught.value.codes == (code,)


# -- caching, pickling, texts ------------------------------------------------------------------------------


def test_plans_are_cached_by_pattern_and_lengths() -> None:
    first, again, other = (plan_of(pd.parse("causal & local(8)").module.main, n, n, 0) for n in (64, 64, 65))
    assert first is again and first is not other
    heads = build.build_plan(
        [((0, 1), first.groups[0].node)], n=64, n_q=64, q_offset=0, num_heads=2, block_sizes=(8, 8)
    )
    (mine,), (theirs,) = heads.groups[0].branches, first.groups[0].branches
    assert heads is not first and mine.parts[0] is theirs.parts[0]


def test_plans_survive_pickling() -> None:
    spec = pd.parse("causal & (local(8) | random(2, block=4) | hierarchical(3) | global([0, 8:12]))")
    plan = plan_of(spec.module.main, 100, 100, 0)
    copy = pickle.loads(pickle.dumps(plan))
    assert copy.groups[0].node is plan.groups[0].node  # interned again
    assert copy.groups[0].branches[0].parts[0].sources[0].pool is TOKENS
    assert copy.stats() == plan.stats() and copy.explain() == plan.explain()
    check(copy, 0)


def test_counts_of_a_plan() -> None:
    plan = plan_of(pd.parse("causal & local(16)").module.main, 64, 64, 0, (8, 8))
    stats = plan.stats()
    # Rows 0 … 7 visit 1, 2, 3, 3, … blocks of 8 keys; in rows 0 and 1 padding is computed, too.
    assert stats.full_blocks + stats.partial_blocks == 1 + 2 + 6 * 3
    assert stats.computed_by_level == {0: stats.computed}
    assert 21 * 64 <= stats.computed <= 24 * 64
    looped = plan_of(pd.parse("causal").module.main, 8192, 8192, 0, (128, 128)).stats()
    assert looped.full_blocks == 63 * 64 // 2 and looped.partial_blocks == 64
    assert looped.computed == 128 * 128 * (64 + sum(-(-r // 4) * 4 for r in range(64)))


def test_explain_says_what_runs_and_why() -> None:
    spec = pd.parse("causal & (local(512) | hierarchical(4))")
    text = plan_of(spec.module.main, 8192, 8192, 0, (128, 128)).explain()
    assert "PFFFP" in text and "level 3, summaries of 64 tokens" in text and "head 0: " in text
    assert "loop" in plan_of(pd.parse("causal").module.main, 8192, 8192, 0, (128, 128)).explain()
