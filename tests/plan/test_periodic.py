"""Rules for rows: whatever the array, the rule gives it back; where there is a rule, it is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import patterndsl as pd
from patterndsl.plan.periodic import Periodic


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=12),
        elements=st.integers(-3, 3),
    )
)
def test_the_rule_gives_the_array_back(array: np.ndarray) -> None:
    rule = Periodic.of(array)
    np.testing.assert_array_equal(rule.array(), array)
    assert rule.array().dtype == np.int32 and rule.rows == len(array) and rule.period <= rule.rows


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=st.integers(0, 2**20)),
    st.integers(2, 40),
    st.integers(-5, 5),
)
def test_a_rule_is_found(values: np.ndarray, turns: int, step: int) -> None:
    period = len(values)
    rows = period * turns + period // 2
    rule = Periodic(rows, values, np.full(values.shape[1], step, np.int32))
    found = Periodic.of(rule.array())
    assert found.period <= period
    np.testing.assert_array_equal(found.array(), rule.array())


def test_the_device_makes_the_same_array() -> None:
    jnp = pytest.importorskip("jax.numpy")
    rule = Periodic(23, np.array([[3, 5], [0, 9]], np.int32), np.array([4, 0], np.int32))
    np.testing.assert_array_equal(rule.at(jnp.arange(23), jnp), rule.array())


def test_a_window_has_one_list_of_offsets_however_long_it_is() -> None:
    attention = pd.compile("causal & local(512)")
    small, large = (attention.plan(n).stats() for n in (2**14, 2**20))
    assert small.table_bytes == large.table_bytes <= 128
