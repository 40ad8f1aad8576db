"""Rates from measurements: a least-squares fit of relative errors, in which no rate is negative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patterndsl.plan.cost import TERMS, Work

Floats = npt.NDArray[np.float64]
TRUST = 0.03  # in the rates of before, beside one measurement


def fit(works: Sequence[Work], seconds: Sequence[float], before: Sequence[float]) -> tuple[float, ...]:
    """The rates, in the order of `TERMS`, that predict the seconds best, relative to each. Where measurements
    leave a rate open, it stays near that of ``before``."""
    work = np.array([[w[name] for name in TERMS] for w in works])
    scale = np.maximum(np.asarray(before, float), 1e-15)
    rows = work * scale / np.asarray(seconds, float)[:, None]
    stay = TRUST * np.eye(len(TERMS))
    system = np.concatenate([rows, stay])
    wanted = np.concatenate([np.ones(len(rows)), np.full(len(TERMS), TRUST)])
    return tuple((scale * _nonnegative(system, wanted)).tolist())


def _nonnegative(a: Floats, b: Floats) -> Floats:
    """Least squares over x ≥ 0, by the active-set method of Lawson and Hanson (1974, chapter 23)."""
    size = a.shape[1]
    x, free = np.zeros(size), np.zeros(size, bool)
    for _ in range(10 * size):
        gradient = a.T @ (b - a @ x)
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-12 or free.all():
            break
        free[best] = True
        while True:
            trial = np.zeros(size)
            trial[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            low = free & (trial <= 0)
            if not low.any():
                x = trial
                break
            step = np.min(x[low] / np.maximum(x[low] - trial[low], 1e-300))
            x = x + step * (trial - x)
            free &= x > 1e-14
            x[~free] = 0.0
    return x
