"""Arguments that make no sense are refused as such, at once, wherever they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.ir.nodes import Range, in_two

HEADS = "heads { 0 => causal; _ => full }"


@pytest.mark.parametrize(
    "call",
    [
        lambda: pd.compile("causal").plan(0),
        lambda: pd.compile("causal").plan(-1),
        lambda: pd.compile("causal").plan(8, -1),
        lambda: pd.compile("causal").plan(8, num_heads=0),
        lambda: pd.compile("causal").plan(8, num_heads=10**12),
        lambda: pd.compile(HEADS).plan(8, num_heads=10**12),
        lambda: pd.compile("heads { 1000000000000 => causal; _ => full }").plan(8),
        lambda: pd.analyze(HEADS, 64, num_heads=10**12),
        lambda: pd.analyze("heads { 1000000000000 => causal; _ => full }", 64),
        lambda: pd.compile("causal", block_sizes=16),  # type: ignore[arg-type]
        lambda: pd.compile("causal", block_sizes=(True, 4)),
        lambda: pd.heads({-1: pd.causal, "_": pd.full}),
        lambda: pd.heads({range(4, 4): pd.causal, "_": pd.full}),
        lambda: pd.heads({0: pd.causal, range(3): pd.full}),
        lambda: pd.heads({range(0, 9, 2): pd.causal, range(1, 9, 3): pd.full}),
        lambda: pd.heads({}),
    ],
)
def test_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(pd.SpecError) as error:
        call()
    assert set(error.value.codes) <= {"E405", "E307", "E304", "E202"}


def test_numbers_of_numpy_are_numbers_and_lists_are_arrays() -> None:
    spec = pd.parse("input doc: token pattern main = causal & same(doc)")
    q = np.ones((4, 1, 2), np.float32)
    found = pd.compile(spec)(
        q, q, q, doc=[0, 0, 1, 1], q_offset=np.int64(0), scale=np.float32(0.5), softcap=np.float64(9)
    )
    np.testing.assert_allclose(found, 1, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"doc": np.array([0, 2**32, 1, 1])},  # would be 0 in 32 bits
        {"doc": [0, 0.5, 1, 1]},
        {"doc": [0, 0, 1, 1], "softcap": np.ones(1)},
        {"doc": [0, 0, 1, 1], "softcap": "30"},
        {"doc": [0, 0, 1, 1], "q_offset": 2**31},
        {"doc": [0, 0, 1, 1], "q_offset": 1.5},
    ],
)
def test_calls_refused(arguments: dict[str, Any]) -> None:
    spec = pd.parse("input doc: token pattern main = causal & same(doc)")
    q = np.ones((4, 1, 2), np.float32)
    for attention in (pd.compile(spec), functools.partial(pd.reference, spec)):
        with pytest.raises(pd.SpecError):
            attention(q, q, q, **arguments)


def test_inputs_that_are_computed_with_must_leave_room() -> None:
    q = np.ones((4, 1, 2), np.float32)
    large = np.array([2**30, 2**30, 1, -5])  # a sum of two does not fit 32 bits
    for predicate, fits in [("a[q] + a[k] > 0", False), ("a[q] < a[k]", True), ("a[q] in [0, 4:8]", True)]:
        spec = pd.parse(f"input a: token pattern main = where(q, k: {predicate})")
        for attention in (pd.compile(spec), functools.partial(pd.reference, spec)):
            if fits:
                attention(q, q, q, a=large)
                continue
            with pytest.raises(pd.SpecError, match="beyond 2\\^28"):
                attention(q, q, q, a=large)


def test_positions_beyond_32_bits_are_refused() -> None:
    q = np.ones((4, 1, 2), np.float32)
    for offset in (2**31 - 3, -(2**31) - 1, 10**30):
        with pytest.raises(pd.SpecError):
            pd.compile("causal")(q, q, q, q_offset=offset)


def test_interleaved_ranges_are_cases_of_their_own() -> None:
    spec = pd.heads({range(0, 8, 2): pd.causal, range(1, 8, 2): pd.full})
    plan = pd.compile(spec).plan(8)
    assert [g.heads for g in plan.groups] == [(0, 2, 4, 6), (1, 3, 5, 7)]


def test_ranges_meet_where_they_have_something_in_common() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = (Range(int(x), int(x + y), int(s)) for x, y, s in rng.integers(1, 13, (2, 3)))
        common = sorted(set(range(a.start, a.stop, a.step)) & set(range(b.start, b.stop, b.step)))
        assert a.meets(b) == (common[0] if common else None)
        assert (in_two([a, b]) is None) is (not common)


def test_all_random_blocks_are_every_pair() -> None:
    assert pd.parse("random(4, block=5)").mask(17).all()
    assert not pd.parse("random(3, block=5)").mask(17).all()
    assert pd.analyze("random(1000000)", 2**20).pairs == 2**40
