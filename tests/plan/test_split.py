"""Members of a union as disjoint pieces: together they are the pattern, and no pair is in two of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.nodes import Node, Union
from patterndsl.ir.normal import NOTHING, TOKENS, Term, branches
from patterndsl.ir.resolve import at_length
from patterndsl.plan.split import Disjointness, Member, members, pieces
from tests.strategies import INPUT, grids, input_values, nodes

N = 40


def counts(term: Term, n: int, inputs: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """How often each token pair counts."""
    env = {"q": np.arange(n)[:, None], "k": np.arange(n)[None, :]}
    keep = np.broadcast_to(evaluate(term.keep, env, inputs or {}), (n, n))
    if term.count is None:
        return keep.astype(np.int64)
    return np.where(keep, evaluate(term.count, env, inputs or {}), 0)


def split(node: Node, n: int, order: list[int] | None = None) -> tuple[tuple[Member, ...], list[Term]]:
    """The members, each a piece of its own, in an order."""
    found = members(node, n)
    groups = [[i] for i in (order or range(len(found)))]
    return found, pieces(found, groups, Disjointness(n, n, 0, {}))


def check(node: Node, n: int, found: tuple[Member, ...], terms: list[Term], groups: list[list[int]]) -> None:
    inputs = dict(input_values((INPUT,), n))
    (branch,) = branches(node, n)
    np.testing.assert_array_equal(
        sum((counts(t, n, inputs) for t in terms), np.zeros((n, n), np.int64)),
        counts(branch.get(TOKENS, NOTHING), n, inputs),
    )
    for addend in {m.addend for m in found}:
        alone = [t for t, g in zip(terms, groups, strict=True) if {found[i].addend for i in g} == {addend}]
        kept = sum(((counts(t, n, inputs) > 0).astype(int) for t in alone), np.zeros((n, n), int))
        assert kept.max(initial=0) <= 1, "two pieces of a union keep one pair"


@settings(max_examples=80, deadline=None)
@given(nodes(3), st.randoms(use_true_random=False))
def test_pieces_are_the_pattern(node: Node, random) -> None:
    try:
        node = at_length(node, N)
        found = members(node, N)
    except SpecError:
        return
    order = list(range(len(found)))
    random.shuffle(order)
    cut = random.randint(1, len(order)) if order else 0
    for groups in ([[i] for i in order], [g for g in (order[:cut], order[cut:]) if g]):
        check(node, N, found, pieces(found, groups, Disjointness(N, N, 0, {})), groups)


@settings(max_examples=30, deadline=None)
@given(grids(), st.integers(1, 9))
def test_pieces_of_grids(case: tuple[int, Node], width: int) -> None:
    n, grid = case
    window = pd.parse(f"local({width})").module.main
    both = at_length(Union((window, grid)), n)
    found, terms = split(both, n)
    check(both, n, found, terms, [[i] for i in range(len(found))])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("causal & (local(8) | strided(4))", ["causal & local(8)", "causal & strided(4)"]),
        ("local(8) | global([0])", ["local(8)", "columns([0])", "rows([0])"]),
        ("(causal | sinks(2)) - strided(3)", ["causal & ~strided(3)", "sinks(2) & ~strided(3)"]),
        ("segments(8, 1) + segments(16, 2)", ["segments(8, dilation=1)", "segments(16, dilation=2)"]),
        ("causal & (local(3) + strided(4))", ["causal & local(3)", "causal & strided(4)"]),
        ("causal & (local(3) | hierarchical(4))", ["causal & local(3)", "causal & hierarchical(4)"]),
        ("local(3) ^ strided(4)", ["local(3) ^ strided(4)"]),
        ("none", []),
    ],
)
def test_members(text: str, expected: list[str]) -> None:
    node = at_length(pd.parse(text).module.main, N)
    assert [str(m) for m in members(node, N)] == expected


def test_addends_of_a_sum_are_left_as_they_are() -> None:
    node = pd.parse("segments(8, 1) + segments(16, 2)").module.main
    found, terms = split(node, N)
    assert [m.addend for m in found] == [0, 1]
    assert [t.keep for t in terms] == [m.keep for m in found] and all(t.count is None for t in terms)


def test_what_a_pair_is_known_to_keep_is_not_asked_again() -> None:
    node = pd.parse("causal & (local(left=8, right=8) | strided(4))").module.main
    _, (window, stride) = split(node, N)
    assert str(stride.keep).count("k <= q") == 1, "causal holds for both"
    assert str(window.keep).count("not") == 0


def test_proved_disjoint_members_need_no_subtraction() -> None:
    far = "where(q, k: q - k >= 8) & strided(4)"
    found, terms = split(pd.parse(f"local(8) | {far}").module.main, N)
    assert [t.keep for t in terms] == [m.keep for m in found]
    # At a length at which a pair is in both, it is refused.
    found, terms = split(pd.parse("local(9) | where(q, k: q - k >= 8) & strided(4)").module.main, N)
    assert terms[1].keep is not found[1].keep


def test_proofs_are_few_and_do_not_depend_on_what_is_known() -> None:
    node = pd.parse(
        " | ".join(f"where(q, k: q - k == {i}) & strided({i + 1})" for i in range(1, 9))
    ).module.main
    found, first = split(node, N)
    known: dict = {}
    groups = [[i] for i in range(len(found))]
    again = [pieces(found, groups, Disjointness(N, N, 0, known)) for _ in range(2)]
    assert first == again[0] == again[1]
    assert len(known) <= 3


def test_too_many_members_stay_together() -> None:
    text = " & ".join(f"(strided({i}) | local({i}))" for i in range(2, 7))
    (member,) = members(pd.parse(text).module.main, N)
    assert member.addend == 0
