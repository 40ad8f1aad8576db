"""The steps of a kernel: tables of tiles as flat lists, without a step for a tile that keeps nothing."""

from __future__ import annotations

import dataclasses

import numpy as np

from patterndsl.backends.cpu_native.schedule import Int64
from patterndsl.backends.pallas.tables import Tables
from patterndsl.plan.plan import Int32

FIRST, LAST, PARTIAL, FULL = 1, 2, 4, 8
"""What a step is: the first and the last of its row, and a tile of which kind; of none where it only writes a
row that keeps nothing, or waits for a longer list."""
KINDS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """``rows`` int32 [lists · length]: the row of each step; ``blocks``: its block times `KINDS` plus what it
    is. ``full``, ``partial``: how many tiles of these kinds there are. Each list is computed by one core."""

    rows: Int32
    blocks: Int32
    lists: int
    length: int
    full: int
    partial: int


def steps(tables: Tables, lists: int = 1) -> Steps:
    """The rows dealt out to lists that have about the same work, the most work first."""
    lists = max(1, min(lists, len(tables.rows)))
    turn = np.arange(len(tables.rows)) % (2 * lists)
    dealt = np.minimum(turn, 2 * lists - 1 - turn)  # 0 1 1 0 0 1 1 0 …
    found = [_list(tables, np.flatnonzero(dealt == i)) for i in range(lists)]
    length = max(len(rows) for rows, _ in found)
    rows = [np.pad(r, (0, length - len(r)), mode="edge") for r, _ in found]
    blocks = [np.concatenate([b, np.full(length - len(b), b[-1] // KINDS * KINDS)]) for _, b in found]
    flat = np.concatenate(rows).astype(np.int32), np.concatenate(blocks).astype(np.int32)
    full = int(tables.rows[:, 2].sum())
    return Steps(*flat, lists, length, full, tables.visits - full)


def _list(tables: Tables, chosen: Int64) -> tuple[Int64, Int64]:
    tile, begin, full, count = tables.rows[chosen].T
    width = np.maximum(count, 1)
    of = np.repeat(np.arange(len(chosen)), width)
    place = np.arange(len(of)) - np.repeat(np.cumsum(width) - width, width)
    kind = np.where(place < full[of], FULL, np.where(place < count[of], PARTIAL, 0))
    kind += np.where(place == 0, FIRST, 0) + np.where(place == width[of] - 1, LAST, 0)
    last = len(tables.blocks) - 1
    block = np.where(place < count[of], tables.blocks[np.minimum(begin[of] + place, last)], 0)
    return tile[of], block * KINDS + kind
