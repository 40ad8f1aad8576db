"""Counts of whole patterns."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.analysis.count import count
from patterndsl.analysis.quadtree import Budget
from patterndsl.builders import mix, where
from patterndsl.diagnostics import SpecError
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import TOKENS
from patterndsl.spec import Spec
from tests.analysis.build import make
from tests.strategies import INPUT, as_module, input_values, nodes

causal = make("causal")
HEADLINE = causal & (make("local", 128) | make("global", tokens=[0]) | make("hierarchical", 4))


@settings(max_examples=40, deadline=None)
@given(nodes(2, blocks=False), st.integers(1, 120), st.integers(-20, 20), st.integers(0, 9))
def test_bounds_hold_for_all_inputs(node: Node, n: int, more: int, seed: int) -> None:
    spec = Spec(as_module(node))
    try:
        bound = spec.bind(n)
    except SpecError:
        return
    n_q = max(1, n + more)
    values = input_values((INPUT,), n, seed)
    found = dense(bound, np.arange(n - n_q, n), n, values)
    slots = sum(int((c > 0).sum()) for c in found.values())
    exact = count(bound, n, n_q, n - n_q, inputs=values).slots
    assert exact.lower == exact.upper == slots
    unknown = count(bound, n, n_q, n - n_q).slots
    assert unknown.lower <= slots <= unknown.upper


def test_headline_at_a_million_tokens() -> None:
    started = time.perf_counter()
    n = 2**20
    found = count(HEADLINE.bind(n), n, n, 0)
    assert time.perf_counter() - started < 5
    assert found.pairs.exact
    # The window and the near chunks (inside it, but for query 0's row) and token 0: 128 keys, and one more
    # from query 128 on.
    assert found.pairs.lower == 128 * 129 // 2 + (n - 128) * 129
    assert found.pairs.rows is not None
    assert found.pairs.rows[[0, 127, 128, n - 1]].tolist() == [1, 128, 129, 129]
    slots = found.slots
    assert slots.exact and slots.rows is not None
    assert slots.rows.sum() == slots.lower


def test_counts_at_a_million_tokens_match_rows_counted_by_hand() -> None:
    """A sample of rows of the largest table, each from the dense definition of one query."""
    n = 2**16
    node = HEADLINE.bind(n)
    rows = count(node, n, n, 0).slots.rows
    assert rows is not None
    for q in (0, 1, 130, 4096, 59_999, n - 1):
        want = sum(int((c > 0).sum()) for c in dense(node, np.array([q]), n).values())
        assert rows[q] == want


def test_weights_count_a_pair_for_each_member() -> None:
    spec = causal + make("local", 3)
    found = count(spec.bind(50), 50, 50, 0)
    dense_counts = dense(spec.bind(50), np.arange(50), 50)[TOKENS]
    assert found.weight is not None
    assert found.weight.lower == dense_counts.sum() == 50 * 51 // 2 + 50 * 5 - 6
    assert found.pairs.lower == (dense_counts > 0).sum()


def test_branches_of_a_mixture_add_up() -> None:
    spec = mix(causal, make("local", 2))
    found = count(spec.bind(10), 10, 10, 0)
    assert found.pairs.lower == 55 + 28


def test_documents_are_bounded_by_the_diagonal_and_everything() -> None:
    found = count((causal & make("same", "doc")).bind(64), 64, 64, 0)
    assert (found.pairs.lower, found.pairs.upper) == (64, 64 * 65 // 2)


@pytest.mark.parametrize(
    "predicate",
    [
        lambda q, k: (q * k // 3 + k * k) % 7 < q % 5,
        lambda q, k: (q * q * q + k) // 11 % 3 < 1,
        lambda q, k: (q - k) % (k % 1000 + 3) < 4,
    ],
)
def test_predicates_that_defeat_the_method_are_bounded_quickly(predicate: object) -> None:
    n = 2**20
    started = time.perf_counter()
    found = count(where(predicate).bind(n), n, n, 0)  # type: ignore[arg-type]
    assert time.perf_counter() - started < 10
    assert not found.pairs.exact
    assert 0 <= found.pairs.lower < found.pairs.upper <= n * n
    assert found.pairs.rows is None


def test_a_polynomial_modulo_seven_is_counted_exactly() -> None:
    n = 2**20
    found = count(where(lambda q, k: (q * k) % 7 < 1).bind(n), n, n, 0).pairs
    zeros = -(-n // 7)
    assert found.lower == found.upper == 2 * n * zeros - zeros**2


def test_beyond_the_limit_the_patterns_own_bound_is_given() -> None:
    n = 10**12
    found = count(make("local", 128).bind(n), n, n, 0).pairs
    assert (found.lower, found.upper) == (0, 255 * n)


def test_values_beyond_64_bits_are_bounded() -> None:
    n = 2**20
    found = count(where(lambda q, k: q * q * q * q * k < 5).bind(n), n, n, 0).pairs
    assert not found.exact


def test_tables_that_are_too_large_are_not_made() -> None:
    n = 2**20
    started = time.perf_counter()
    found = count(make("random", 4, block=1).bind(n), n, n, 0).pairs
    assert time.perf_counter() - started < 1
    assert (found.lower, found.upper) == (0, 4 * n)


def test_no_budget_leaves_bounds() -> None:
    found = count(causal.bind(100), 100, 100, 0, budget=Budget(0)).pairs
    assert (found.lower, found.exact) == (0, False)
    assert found.upper >= 5050
