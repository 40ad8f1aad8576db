"""A closer look at mixed tiles: some are empty or full after all, which no single interval shows.

Intervals judge each comparison exactly over a tile, but not how two of them meet within it: a grid's line
that wraps inside the tile, or a block that begins there. Cutting the tile shows it. Most patterns have no
such tiles, which a sample tells.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from patterndsl.ir.interval import ANY, Interval

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Judge = Callable[[Interval, Interval], tuple[Bools, Bools]]

SAMPLE = 256
MOST_TILES = 2**17
MOST_BOXES = 2**19
CUTS = 5


def closer(judge: Judge, q: Interval, slots: Interval, worth: float) -> tuple[Bools, Bools]:
    """Which of the mixed tiles keep nothing, and which everything. Tiles in doubt are neither. All are looked
    at only if ``worth`` of the sample turn out empty or full.
    """
    tiles = len(slots.lo)
    empty, full = np.zeros(tiles, bool), np.zeros(tiles, bool)
    if q is ANY or tiles == 0:
        return empty, full
    some = np.unique(np.linspace(0, tiles - 1, SAMPLE).astype(np.int64))
    empty[some], full[some] = _cut_up(judge, q, slots, some)
    if tiles <= MOST_TILES and np.mean((empty | full)[some]) >= worth:
        every = np.arange(tiles)
        empty, full = _cut_up(judge, q, slots, every)
    return empty, full


def _cut_up(judge: Judge, q: Interval, slots: Interval, which: Int64) -> tuple[Bools, Bools]:
    """Cut into quarters, level by level, until each tile is seen to be mixed, empty or full, or the cuts are
    spent.
    """
    holds, fails = np.zeros(len(which), bool), np.zeros(len(which), bool)
    owner = np.arange(len(which))
    box = [x[which] for x in (q.lo, q.hi, slots.lo, slots.hi)]
    for _ in range(CUTS):
        owner, box = _quarters(owner, box)
        always, mixed = judge(Interval(box[0], box[1]), Interval(box[2], box[3]))
        holds[owner[always]] = True
        fails[owner[~(always | mixed)]] = True
        left = mixed & ~(holds & fails)[owner]
        owner, box = owner[left], [x[left] for x in box]
        if not len(owner) or len(owner) > MOST_BOXES:
            break
    doubt = np.zeros(len(which), bool)
    doubt[owner] = True
    return ~(doubt | holds), ~(doubt | fails)


def _quarters(owner: Int64, box: list[Int64]) -> tuple[Int64, list[Int64]]:
    for side in (0, 2):
        lo, hi = box[side], box[side + 1]
        middle = (lo + hi) >> 1
        two = hi > lo
        box = [np.concatenate([x, x[two]]) for x in box]
        box[side + 1] = np.concatenate([middle, hi[two]])
        box[side] = np.concatenate([lo, middle[two] + 1])
        owner = np.concatenate([owner, owner[two]])
    return owner, box
