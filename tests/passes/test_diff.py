"""Comparing specs: equal for every n, different (and where first), or undecided (and why)."""

from __future__ import annotations

import pytest

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.diff import diff

DOC = "input doc: token\npattern main = "

EQUAL = [
    ("causal & local(128)", "local(left=127, right=0)"),
    ("local(64) | local(128) | none", "local(128)"),
    ("tree(4)", "hierarchical(4, window=0)"),
    ("random(2) | none", "random(2)"),
    ("strided(4) & strided(6)", "strided(12)"),
    ("chunked(8) & ~chunked(4)", "chunked(8) ^ chunked(4)"),
    ("causal + self", "causal | causal + self"),
    ("hierarchical(4, levels=2) & full", "hierarchical(4, levels=2, leaf=4)"),
    ("blocks(self, 4)", "chunked(4)"),
    (f"{DOC}same(doc) & local(4)", f"{DOC}local(4) & where(q, k: doc[k] == doc[q])"),
    (
        "heads { 0:4 => local(4); _ => full }",
        "heads { 0:2 => local(4); 2:4 => local(4) | self; _ => full | self }",
    ),
    ("where(q, k: k % 8 == h)", "where(q, k: h == k % 8)"),
    ("axial(shape=[8, 8], axis=1)", "chunked(8)"),
    ("columns([5])", "where(q, k: k == 5)"),
]


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_for_every_n(a: str, b: str) -> None:
    result = diff(a, b)
    assert result.outcome == "equal", str(result)
    assert str(result).startswith("the same for every n")


DIFFERENT = [
    ("causal", "full", "at n = 2, query 0 sees key 1 only in B"),
    ("local(64)", "local(128)", "at n = 65, query 0 sees key 64 only in B"),
    ("local(2000)", "local(2001)", "at n = 2001, query 0 sees key 2000 only in B"),
    ("causal + local(4)", "causal | local(4)", "at n = 1, query 0 sees key 0 twice in A, once in B"),
    ("hierarchical(4)", "tree(4)", "at n = 5, query 0 sees key 4 only in A"),
    (
        "hierarchical(2)",
        "hierarchical(2, levels=1)",
        "at n = 9, query 0 sees the summary of key 8 only in B",
    ),
    ("random(2)", "random(2, seed=1)", "at n = 129, query 0 sees key 0 only in B"),
    (
        "mix(causal, local(3))",
        "mix(causal, local(4))",
        "at n = 4, query 0 sees key 3 only in B (branch 1 of the mixture)",
    ),
    ("local(n // 4)", "local(9)", "at n = 4, query 0 sees key 1 only in B"),
    (
        "sinks(ceil(n / 3)) & local(100)",
        "sinks(ceil(n / 3)) & local(99)",
        "at n = 100, query 99 sees key 0 only in A",
    ),
]


@pytest.mark.parametrize(("a", "b", "where"), DIFFERENT)
def test_different_at_the_smallest_n(a: str, b: str, where: str) -> None:
    result = diff(a, b)
    assert result.outcome == "different"
    assert str(result).splitlines()[0] == f"different: {where}"


def test_the_difference_is_there() -> None:
    result = diff("hierarchical(4) & causal", "hierarchical(4) & local(9)")
    found = result.difference
    assert found is not None
    slots = [pd.parse(s).slots(found.n) for s in ("hierarchical(4) & causal", "hierarchical(4) & local(9)")]
    counts = []
    for s in slots:
        here = (s.level == found.level) & (s.start == found.start)
        counts.append(int(s.counts[found.q, here][0]) if here.any() else 0)
    assert tuple(counts) == found.counts and counts[0] != counts[1]
    assert result.to_dict()["difference"]["k"] == found.start


def test_inputs_are_tried_and_shown() -> None:
    result = diff(f"{DOC}same(doc)", f"{DOC}where(q, k: doc[q] <= doc[k])")
    found = result.difference
    assert found is not None
    doc = found.inputs["doc"]
    assert (doc[found.q] == doc[found.k]) != (doc[found.q] <= doc[found.k])
    assert f"with doc = {list(doc)}" in str(result)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("where(q, k: k * k < 100)", "where(q, k: k < 10)", "`k * k` multiplies two numbers that vary"),
        (
            "strided(ceil(sqrt(n)))",
            "strided(ceil(sqrt(n))) | self",
            "`sqrt(n)` is not a linear function of n",
        ),
        (
            "hierarchical(4)",
            "hierarchical(4) | local(3)",
            "the summaries of `hierarchical(4)` are not known before n is",
        ),
    ],
)
def test_what_is_not_proved_says_why_and_how_far_it_was_checked(a: str, b: str, reason: str) -> None:
    result = diff(a, b)
    assert (result.outcome, result.checked, result.reason) == ("undecided", 64, reason)
    assert str(result) == f"no difference up to n = 64; not proved in general, because {reason}"


def test_heads_beyond_those_compared_are_not_claimed() -> None:
    result = diff("where(q, k: k % 8 == h)", "where(q, k: (k - h) % 8 == 0)")  # differ at head 8
    assert result.outcome == "undecided" and "heads 0 to 7" in result.reason


def test_the_head_and_layer_that_differ_are_named() -> None:
    result = diff("heads { 0:4 => local(4); _ => full }", "heads { 0:3 => local(4); _ => full }")
    assert result.outcome == "different" and result.head == 3 and result.layer is None
    result = diff("layers { every 6 => full; _ => local(9) }", "layers { every 3 => full; _ => local(9) }")
    assert result.outcome == "different" and result.layer == 2


def test_branches_of_mixtures_are_counted() -> None:
    result = diff("mix(causal, local(3))", "causal")
    assert str(result) == "different: they mix 2 and 1 branches"


def test_lengths_without_a_meaning_are_left_out_and_noted() -> None:
    result = diff("columns([5])", "where(q, k: k == 5)")
    assert result.notes == ("at n = 1 only B has a meaning; such n were left out",)
    never = diff("axial(shape=[8, 8], axis=0)", "axial(shape=[4, 4], axis=0)")
    assert never.outcome == "undecided" and never.checked == 0


def test_specs_that_only_longer_lengths_fit_are_compared() -> None:
    """Neither has a meaning at any n up to the limit."""
    result = diff("causal & global([100])", "causal & global([101])")
    assert result.outcome == "different" and result.difference is not None and result.difference.n == 102
    assert diff("causal & global([100])", "global([100]) & causal").outcome == "equal"
    with pytest.raises(SpecError, match="E302"):
        diff("local(-n)", "strided(-n)", limit=8)


def test_queries_beyond_the_keys_are_noted() -> None:
    result = diff("where(q, k: q >= 0)", "full")
    assert result.outcome == "equal" and "n_q > n" in result.notes[0]
    assert diff("local(4) & causal", "local(left=3, right=0)").notes == ()


def test_params_go_to_the_spec_that_has_them() -> None:
    spec = "param w = 4\npattern main = local(w)"
    assert diff(spec, "local(9)", params={"w": 9}).outcome == "equal"
    assert diff(spec, "local(9)").outcome == "different"
    with pytest.raises(SpecError) as caught:
        diff(spec, "local(9)", params={"window": 9})
    assert caught.value.codes == ("E110",)


def test_an_outcome_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match="outcome"):
        bool(diff("causal", "causal"))
