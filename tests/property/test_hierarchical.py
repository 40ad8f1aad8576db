"""Every token is represented exactly once, and a causal row does not change when n grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd

ARGUMENTS = {
    "n": st.integers(1, 200),
    "factor": st.integers(2, 6),
    "window": st.integers(0, 4),
    "leaf": st.one_of(st.none(), st.integers(1, 20)),
    "levels": st.one_of(st.none(), st.integers(1, 4)),
}


def times_seen(slots: pd.Slots, n: int) -> np.ndarray:
    """For each query, how often each token is represented, int [n_q, n]."""
    tokens = np.arange(n)
    inside = (slots.start[:, None] <= tokens) & (tokens < slots.stop[:, None])
    return slots.counts @ inside.astype(np.int64)


@settings(max_examples=150, deadline=None)
@given(**ARGUMENTS)
def test_each_token_is_seen_exactly_once(n, factor, window, leaf, levels):
    spec = pd.hierarchical(factor, window=window, leaf=leaf, levels=levels)
    assert (times_seen(spec.slots(n), n) == 1).all()


@settings(max_examples=150, deadline=None)
@given(**ARGUMENTS)
def test_under_causal_the_past_is_seen_once_and_the_future_never(n, factor, window, leaf, levels):
    spec = pd.causal & pd.hierarchical(factor, window=window, leaf=leaf, levels=levels)
    past = np.tri(n, dtype=np.int64)
    assert (times_seen(spec.slots(n), n) == past).all()


@settings(max_examples=100, deadline=None)
@given(more=st.integers(0, 300), **ARGUMENTS)
def test_a_causal_row_does_not_change_when_n_grows(n, factor, window, leaf, levels, more):
    spec = pd.causal & pd.hierarchical(factor, window=window, leaf=leaf, levels=levels)
    short, long = spec.slots(n), spec.slots(n + more, q_offset=0, n_q=n)

    def rows(slots: pd.Slots) -> list[set[tuple[int, int, int]]]:
        return [
            {(int(slots.level[s]), int(slots.start[s]), int(slots.stop[s])) for s in np.flatnonzero(row)}
            for row in slots.counts
        ]

    assert rows(short) == rows(long)


@pytest.mark.parametrize("more", [{}, {"reduce": "max", "weight": "one", "of": "summaries"}], ids=str)
def test_tree_is_hierarchical_without_a_window(more):
    x = np.random.default_rng(0).standard_normal((33, 1, 4))
    for n in (1, 2, 7, 33):
        specs = pd.tree(3, **more), pd.hierarchical(3, window=0, **more)
        a, b = (spec.slots(n) for spec in specs)
        assert (a.counts == b.counts).all() and (a.start == b.start).all()
        a, b = (pd.reference(spec, x[:n], x[:n], x[:n]) for spec in specs)
        np.testing.assert_array_equal(a, b)


def test_slots_a_query_grow_with_the_logarithm():
    spec = pd.hierarchical(4)
    most = [int(spec.slots(n).counts.sum(1).max()) for n in (64, 256, 1024)]
    assert most[1] - most[0] <= 2 * 4 * 3 and most[2] - most[1] <= 2 * 4 * 3
