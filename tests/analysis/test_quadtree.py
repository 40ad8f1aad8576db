"""Sums over the quadtree equal dense sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.analysis import signature
from patterndsl.analysis.quadtree import OVERHEAD, Budget, _visits, tally
from patterndsl.diagnostics import SpecError
from patterndsl.ir.dense import dense
from patterndsl.ir.expr import K, Q, as_expr, quantify, var
from patterndsl.ir.nodes import Node, Where
from patterndsl.ir.normal import TOKENS, branches
from patterndsl.patterns.transforms import Blocks
from patterndsl.spec import Spec
from tests.strategies import as_module, grids, leaves, nodes


def check(node: Node, n: int, n_q: int) -> None:
    found = dense(node, np.arange(n - n_q, n), n)
    (branch,) = branches(node, n)
    for pool in found.keys() | branch.keys():
        counts = found.get(pool, np.zeros((n_q, pool.chunks(n)), int))
        if pool not in branch:
            assert not counts.any()
            continue
        slot = "k" if pool is TOKENS else "c"
        for e, want in ((branch[pool].keep, counts > 0), (branch[pool].amount, counts)):
            got = tally(e, slot, n - n_q, n_q, pool.chunks(n), stride=pool.stride, budget=Budget(1e12))
            assert got.exact
            assert got.rows is not None
            np.testing.assert_array_equal(got.rows, want.sum(axis=1))
            assert got.lower == want.sum()


@settings(max_examples=120, deadline=None)
@given(nodes(3, inputs=False, blocks=False), st.integers(1, 300), st.integers(-40, 40))
def test_sums_equal_the_dense_counts(node: Node, n: int, more: int) -> None:
    try:
        bound = Spec(as_module(node)).bind(n)
    except SpecError:
        return
    check(bound, n, max(1, n + more))


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(-5, 40))
def test_sums_on_grids(grid: tuple[int, Node], more: int) -> None:
    n, node = grid
    check(Spec(as_module(node)).bind(n), n, max(1, n + more))


@settings(max_examples=30, deadline=None)
@given(leaves(summaries=False, inputs=False), st.integers(1, 4), st.integers(1, 120), st.integers(-20, 20))
def test_sums_of_coarsened_patterns(node: Node, size: int, n: int, more: int) -> None:
    try:
        bound = Spec(as_module(Blocks(node, as_expr(size)))).bind(n)
    except SpecError:
        return
    check(bound, n, max(1, n + more))


def test_boxes_that_only_seem_alike_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with dense counts catches a signature that forgets its keys."""
    node = Spec(as_module(Where((Q - K) % 5 <= 1))).bind(100)
    check(node, 100, 100)
    monkeypatch.setattr(signature._Scope, "key", lambda self, value, where: None)
    with pytest.raises(AssertionError):
        check(node, 100, 100)


def test_work_counts_what_quantifiers_look_at() -> None:
    """A quantifier looks three times at its body, and one inside another nine times at its own."""
    inner = quantify("exists", "i", as_expr(0), as_expr(8), (Q + K).eq(var("i")), 9)
    outer = quantify("exists", "j", as_expr(0), K, inner & (var("j") > Q), 9)
    assert _visits(Q < K) < _visits(inner) / 2
    assert _visits(outer) > 9 * _visits(inner.args[2])
    alone = Budget(2.0 * OVERHEAD * len(outer.walk()))  # enough only if bodies cost no more than once
    assert not tally(outer, "k", 0, 64, 64, budget=alone).exact
