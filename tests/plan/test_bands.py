"""Bands: what is proved to be the same from row to row is, and rows are not looked at one by one then."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr
from patterndsl.ir.invariance import invariance
from patterndsl.ir.normal import branches, slot_index
from patterndsl.ir.resolve import at_length
from patterndsl.plan import bands, build
from patterndsl.plan.tables import Grid
from tests.plan.test_plan import check, patterns, plan_of


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bands, "LEAST_ROWS", 2)
    build.forget_plans()
    yield
    build.forget_plans()


def _terms(text: str, n: int) -> list[tuple[str, int, Expr]]:
    node = at_length(pd.parse(f"input doc: token\npattern main = {text}").module.main, n)
    return [(str(slot_index(p).value), p.stride, t.keep) for b in branches(node, n) for p, t in b.items()]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(patterns, st.integers(1, 200), st.booleans())
def test_a_shift_that_is_proved_changes_nothing(text: str, n: int, along: bool) -> None:
    for slot, stride, keep in _terms(text, n):
        period = invariance(keep, {"q": Fraction(1), slot: Fraction(1, stride) if along else Fraction(0)})
        if period is None or period > 10**6 or keep.reads_data():
            continue
        q, s = np.arange(40)[:, None], np.arange(40)[None, :]
        shape = (40, 40)
        here, there = (
            np.broadcast_to(evaluate(keep, {"q": q + t, slot: s + (t // stride if along else 0)}), shape)
            for t in (0, period)
        )
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("text", "along", "down"),
    [
        ("local(5)", 1, None),
        ("where(q, k: k % 6 == 0)", 6, 1),
        ("where(q, k: (q - k) % 6 == 0)", 1, 6),
        ("where(q, k: q // 4 == k // 6)", None, None),
        ("where(q, k: q // 4 - k // 4 <= 2 and (q + k) % 3 == 0)", 12, None),
        ("where(q, k: k < 5)", None, 1),
        ("where(q, k: max(q, k) - min(q, k) < 3)", 1, None),
        ("where(q, k: max(q % 8, 3) == min(k % 4, 2))", 8, 8),
        ("same(doc)", 1, 1),
        ("where(q, k: doc[q] <= k and k <= q)", 1, None),
        ("where(q, k: abs(doc[q] - k) < 9)", 1, 1),
        ("where(q, k: abs(doc[q] - k) < k - 9)", None, 1),
        ("where(q, k: abs(doc[q]) < k - 9)", None, 1),
        ("where(q, k: doc[q] + k - doc[q] < 9)", None, 1),
        ("where(q, k: (doc[q] * 2 + k) % 2 == 0)", 2, 1),
    ],
)
def test_periods(text: str, along: int | None, down: int | None) -> None:
    ((slot, _, keep),) = _terms(text, 100)
    assert invariance(keep, {"q": Fraction(1), slot: Fraction(1)}) == along
    assert invariance(keep, {"q": Fraction(1), slot: Fraction(0)}) == down


SPECS = [
    "causal & local(9)",
    "causal",
    "strided(6)",
    "global([0, 3, -1]) | local(5)",
    "fixed(block=8, summary=2)",
    "segments(16, 2)",
    "neighborhood([20, 25], [5, 5])",
    "causal & (local(9) | global([0:4]) | hierarchical(4))",
    "hierarchical(3, leaf=5) & local(60)",
    "local(9) + local(20)",
]


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize(
    ("n", "n_q", "offset"), [(500, 500, 0), (512, 512, 0), (500, 211, 289), (301, 400, -99)]
)
def test_tables_of_bands_are_exact(text: str, n: int, n_q: int, offset: int) -> None:
    if "neighborhood" in text and n != 500:
        n, n_q, offset = 500, 300, 7
    check(plan_of(pd.parse(text).module.main, n, n_q, offset), offset)


def _boxes(text: str, n: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Boxes judged on the way to a plan with tiles of 8."""
    judged, judge = [0], Grid.judge

    def counting(grid: Grid, q: object, slots: object) -> object:
        judged[0] += len(slots.lo)
        return judge(grid, q, slots)

    with monkeypatch.context() as patch:
        patch.setattr(Grid, "judge", counting)
        build.forget_plans()
        plan_of(pd.parse(text).module.main, n, n, 0)
    return judged[0]


@pytest.mark.parametrize(
    "text",
    ["causal & local(64)", "local(9) | columns([0:4])", "causal", "chunked(32, back=1)", "dilated(5, 3)"],
)
def test_rows_are_not_looked_at_one_by_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LEAST_ROWS", 16)
    few, many = (_boxes(text, n, monkeypatch) for n in (2**12, 2**16))
    assert many < few + 2000  # of 8192 rows


@pytest.mark.parametrize("text", ["fixed(12, 5)", "where(q, k: 2 * k < q)", "causal & hierarchical(3)"])
def test_a_wrong_period_is_caught(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would see a proof that proves too much."""
    monkeypatch.setattr(bands, "invariance", lambda e, slopes: 1)
    with pytest.raises(AssertionError):
        check(plan_of(pd.parse(text).module.main, 200, 200, 0), 0)
