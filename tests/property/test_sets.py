"""Exact integer sets against the dense meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patterndsl.ir import sets
from patterndsl.ir.dense import dense
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, K, N, Q, all_of, as_expr, popcount, quantify, read, var, where, xor
from patterndsl.ir.nodes import Node, Tokens
from patterndsl.ir.normal import TOKENS
from patterndsl.ir.resolve import at_length
from patterndsl.patterns import builtin
from tests.strategies import grids, nodes, predicates


def pairs_of(kept: np.ndarray, queries: range) -> set[tuple[int, int]]:
    return {(queries[i], int(k)) for i, k in zip(*np.nonzero(kept), strict=True)}


def quasi_affine(node: Node, n: int) -> bool:
    """Whether the sets take the pattern, and its arguments make sense at n."""
    try:
        sets.is_empty(sets.token_set(node))
        return not sets.is_empty(all_of(sets.lengths(node), N.eq(n)))
    except sets.NotDecided:
        return False


@settings(max_examples=150, deadline=None)
@given(predicates(), st.integers(1, 12))
def test_the_set_of_a_predicate_is_its_mask(e: Expr, n: int) -> None:
    queries = range(-4, n + 5)
    env = {"q": np.array(queries)[:, None], "k": np.arange(n)[None, :], "n": n}
    kept = np.broadcast_to(evaluate(e, env), (len(queries), n))
    assert sets.pairs(e, n, queries) == pairs_of(kept, queries)


@settings(max_examples=80, deadline=None)
@given(nodes(3, summaries=False, inputs=False), st.integers(1, 12))
def test_the_set_of_a_pattern_is_its_mask(node: Node, n: int) -> None:
    assume(quasi_affine(node, n))
    queries = range(-4, n + 5)
    kept = dense(at_length(node, n), np.array(queries), n)[TOKENS] > 0
    assert sets.pairs(sets.token_set(node), n, queries) == pairs_of(kept, queries)


@settings(max_examples=30, deadline=None)
@given(grids())
def test_the_set_of_a_grid_is_its_mask(grid: tuple[int, Node]) -> None:
    n, node = grid
    assume(n <= 30)
    queries = range(-2, n + 3)
    kept = dense(at_length(node, n), np.array(queries), n)[TOKENS] > 0
    assert sets.pairs(sets.token_set(node), n, queries) == pairs_of(kept, queries)
    assert sets.is_empty(all_of(sets.lengths(node), N.ne(n)))


@settings(max_examples=100, deadline=None)
@given(predicates(depth=1), predicates(depth=1))
def test_decisions_agree_with_small_masks(a: Expr, b: Expr) -> None:
    present = sets.Domain("present")
    differ = (a & ~b) | (b & ~a)
    found = sets.smallest(differ, present)
    assert (found is None) == sets.is_equal(a, b, present)
    assert sets.is_equal(a, b, present) == (sets.is_subset(a, b, present) and sets.is_subset(b, a, present))
    assert sets.is_disjoint(a, b, present) == sets.is_empty(a & b, present)
    for n in range(1, 20):
        env = {"q": np.arange(n)[:, None], "k": np.arange(n)[None, :], "n": n}
        where_ = np.argwhere(np.broadcast_to(evaluate(differ, env), (n, n)))
        if len(where_):
            assert found == (n, *map(int, where_[0]))
            return
    assert found is None or found[0] >= 20


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Q // -3, -(Q // 3) - where((Q % 3).eq(0), 0, 1)),
        (Q % -5, where((Q % 5).eq(0), 0, Q % 5 - 5)),
        (abs(Q - K), where(Q < K, K - Q, Q - K)),
    ],
)
def test_floors_and_moduli_are_pythons(a: Expr, b: Expr) -> None:
    assert sets.is_equal(a.eq(b), as_expr(True))


def test_a_subset_holds_for_all_lengths_at_once() -> None:
    local = builtin("local")
    near, far = (sets.token_set(local(as_expr(w))) for w in (64, 128))
    assert sets.is_subset(near, far) and not sets.is_subset(far, near)
    assert sets.smallest(far & ~near, sets.Domain("present")) == (65, 0, 64)


def test_the_smallest_point_prefers_queries_that_exist() -> None:
    assert sets.smallest((Q - K).eq(2)) == (1, 2, 0)
    assert sets.smallest((Q - K).eq(2), sets.Domain("present")) == (3, 2, 0)
    assert sets.smallest(Q < 0) == (1, -1, 0)
    assert sets.smallest(all_of(Q < 0, Q >= 0)) is None


def test_quantifiers_are_projected() -> None:
    near = quantify("forall", "k", K // 4 * 4, K // 4 * 4 + 3, abs(Q - var("k")) < 6, 4)
    by_ends = all_of(abs(Q - K // 4 * 4) < 6, abs(Q - (K // 4 * 4 + 3)) < 6)
    assert sets.is_equal(near, by_ends)
    some = quantify("exists", "k", K // 4 * 4, K // 4 * 4 + 3, Q.eq(var("k")), 4)
    assert sets.is_equal(some, (Q // 4).eq(K // 4))


@pytest.mark.parametrize(
    ("e", "why"),
    [
        (Q * K < 9, "multiplies"),
        ((Q % K).eq(0), "divides"),
        (read("doc", Q).eq(read("doc", K)), "input `doc`"),
        (popcount(xor(Q, K)) < 2, "binary"),
        (var("$w") > K, "`w`"),
    ],
)
def test_what_is_not_quasi_affine_is_refused_unless_opaque(e: Expr, why: str) -> None:
    with pytest.raises(sets.NotQuasiAffine, match=why):
        sets.is_empty(e)
    assert sets.is_subset(e & (K < 4), e & (K < 5), opaque=True)
    assert not sets.is_subset(e & (K < 5), e & (K < 4), opaque=True)


def test_fixed_levels_of_summaries_are_sets_and_levels_of_n_are_not() -> None:
    hierarchical = builtin("hierarchical")
    fixed = sets.pattern_set(hierarchical(as_expr(4), levels=as_expr(2)))
    assert [pool.size for pool in fixed] == [1, 4, 16]
    with pytest.raises(sets.NotQuasiAffine, match="not known before n is"):
        sets.pattern_set(hierarchical(as_expr(4)))


def test_a_question_beyond_the_budget_is_not_decided(monkeypatch) -> None:
    monkeypatch.setattr(sets, "BUDGET", 100)
    with pytest.raises(sets.NotDecided, match="intricate"):
        sets.is_empty(all_of(Q % 3 > 1, K % 5 > Q // 2))


def test_lengths_are_those_at_which_arguments_make_sense() -> None:
    strided, columns = builtin("strided"), builtin("columns")
    assert sets.is_equal(sets.lengths(strided(N // 4)), N >= 4)
    tokens = Tokens((as_expr(5), as_expr(-3), (None, as_expr(99), None)))
    assert sets.is_equal(sets.lengths(columns(tokens)), N >= 6)
