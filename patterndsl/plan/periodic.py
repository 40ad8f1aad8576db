"""Numbers that change from row to row by a rule: stored once for each row of a period, not for every row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

CANDIDATES = 32  # periods tried in full
SAMPLE = 64  # rows at which a period is tried first
MOST_LIKELY = 4096  # periods, the shortest, that are left after a try
PIECE = 2**16


@dataclasses.dataclass(frozen=True, eq=False)
class Periodic:
    """An int32 array of ``rows`` rows, of which row i is ``values[i % period] + (i // period) · step``.

    ``values`` int32 [period, …], ``step`` int32 […]. One row and a step describe the offsets of a window
    however long it is; an array without a rule is its own only period.
    """

    rows: int
    values: Int32
    step: Int32

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Periodic:
        """The array by the shortest rule that is found for it."""
        array = np.ascontiguousarray(array, np.int32)
        period = _period(array)
        step = array[period] - array[0] if period < len(array) else np.zeros(array.shape[1:], np.int32)
        return cls(len(array), array[:period].copy(), np.asarray(step, np.int32))

    @classmethod
    def constant(cls, row: npt.NDArray[Any], rows: int) -> Periodic:
        """The same row, ``rows`` times."""
        values = np.asarray(row, np.int32)[None]
        return cls(rows, values, np.zeros(values.shape[1:], np.int32))

    @property
    def period(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (self.step.nbytes if self.period < self.rows else 0)

    def array(self) -> Int32:
        """The whole array, made anew."""
        if self.period == self.rows:
            return self.values
        made: Int32 = self.at(np.arange(self.rows, dtype=np.int32), np)
        return made

    def at(self, i: Any, xp: Any) -> Any:
        """Rows ``i``, int32 [m], in NumPy or JAX (``xp``): on a device from an iota, so that only the rule is
        sent there.
        """
        values = xp.asarray(self.values)
        turns = (i // self.period).reshape(-1, *(1,) * (self.values.ndim - 1))
        return values[i % self.period] + turns * xp.asarray(self.step)


def _period(array: Int32) -> int:
    """The shortest period found, the array's length where there is none."""
    rows = len(array)
    if rows < 2:
        return rows
    flat = array.reshape(rows, -1)
    mixer = np.random.default_rng(0).integers(1, 2**62, flat.shape[1])
    mixed = flat.astype(np.int64) @ mixer  # rises by the same from period to period, where the rows do
    rise = np.diff(mixed)
    if np.all(rise == rise[0]):
        likely = np.ones(1, np.int64)
    else:
        likely = np.arange(2, rows // 2 + 1)
        for i in np.unique(np.linspace(0, rows - 2, SAMPLE).astype(np.int64)):  # rises a period apart
            apart = i + likely if i < rows // 2 else i - likely
            outside = (apart < 0) | (apart >= rows - 1)
            likely = likely[outside | (rise[np.clip(apart, 0, rows - 2)] == rise[i])][:MOST_LIKELY]
    candidates: list[int] = likely[:CANDIDATES].tolist()
    for p in candidates:
        turn = mixed[p:] - mixed[:-p]
        if np.all(turn == turn[0]) and _repeats(flat, p):
            return p
    return rows


def _repeats(flat: Int32, period: int) -> bool:
    """Every row is the one a period before it and a step (looked at piece by piece, to save memory)."""
    step = flat[period] - flat[0]
    late, early = flat[period:], flat[:-period]
    pieces = range(0, len(late), PIECE)
    return all(bool(np.all(late[i : i + PIECE] - early[i : i + PIECE] == step)) for i in pieces)
