"""Tables of a part in a kernel's own tiles: for each tile of queries the blocks of keys that it visits.

A kernel's tiles are fixed by the device (64 queries for each of its warpgroups), a plan's by what it keeps. A
block is full where all of it lies in what the plan keeps whole; else the predicate is asked.
"""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np

from patterndsl.backends.cpu_native.schedule import Int64, tile_runs
from patterndsl.plan.plan import Int32, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """``rows`` int32 [rows, 4], those with most work first: the tile of ``tile`` places, where its blocks
    begin in ``blocks``, the number of full ones, the number of all; full ones come first. ``blocks`` int32
    [blocks]: blocks of ``block`` places each."""

    rows: Int32
    blocks: Int32
    tile: int
    block: int

    @property
    def visits(self) -> int:
        """How many tiles are computed."""
        return int(self.rows[:, 3].sum())


def cells(part: Part, n_q: int, tile: int, block: int) -> int:
    """An upper bound on the tiles of a part, without making them."""
    (source,) = part.sources
    runs = tile_runs(part)[2]
    height = -(-part.block_q // tile) + 1
    width = -(-np.minimum(runs[:, 2], source.slots) // block) + 1
    return int(width.sum()) * height


_made: weakref.WeakKeyDictionary[Part, dict[tuple[int, int, int], tuple[Tables, Tables]]]
_made = weakref.WeakKeyDictionary()  # plans are traced many times


def tables(part: Part, n_q: int, tile: int, block: int) -> tuple[Tables, Tables]:
    """A part's tables by rows of queries, for tiles of ``tile`` queries and ``block`` keys, and by columns of
    keys: for each block of keys the tiles of queries. Made once, and kept as long as the part is."""
    made = _made.setdefault(part, {})
    key = n_q, tile, block
    if key not in made:
        made[key] = _tables(part, *key)
    return made[key]


def _tables(part: Part, n_q: int, tile: int, block: int) -> tuple[Tables, Tables]:
    queries = n_q if part.layout.queries is None else part.layout.queries.size
    (source,) = part.sources
    row, column, full = _visited(part, queries, source.slots, tile, block)
    rows, columns = -(-queries // tile), -(-source.slots // block)
    by_row = _grouped(row, column, full, rows, tile, block)
    return by_row, _grouped(column, row, full, columns, block, tile)


def _visited(part: Part, queries: int, slots: int, tile: int, block: int) -> tuple[Int64, Int64, Int64]:
    """Row, column and whether it is full, of each tile that keeps something."""
    tiles, ends, runs = tile_runs(part)
    of = np.repeat(np.arange(len(tiles)), np.diff(ends, prepend=0))
    first = tiles[of].astype(np.int64) * part.block_q
    last = np.minimum(first + part.block_q, queries)
    full = (runs[:, 0] & 1) == 0
    start, stop = runs[:, 1], np.minimum(runs[:, 1] + runs[:, 2], slots)
    some = (start < stop) & (first < last)
    first, last, full, start, stop = (x[some] for x in (first, last, full, start, stop))
    i, row = _cut(first, last, tile)
    height = np.minimum(last[i], (row + 1) * tile) - np.maximum(first[i], row * tile)
    j, column = _cut(start[i], stop[i], block)
    width = np.minimum(stop[i][j], (column + 1) * block) - np.maximum(start[i][j], column * block)
    area = np.where(full[i][j], height[j] * width, 0)
    columns = -(-slots // block)
    found, inverse = np.unique(row[j] * columns + column, return_inverse=True)
    area = np.bincount(inverse, weights=area, minlength=len(found))
    row, column = np.divmod(found, columns)
    real = np.minimum(queries - row * tile, tile)
    whole = (area == real * block) & ((column + 1) * block <= slots)
    return row, column, whole.astype(np.int64)


def _cut(start: Int64, stop: Int64, size: int) -> tuple[Int64, Int64]:
    """The pieces into which runs are cut at multiples of a size: of which run, and the number of each."""
    low, high = start // size, -(-stop // size)
    of = np.repeat(np.arange(len(start)), high - low)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[of]


def _grouped(row: Int64, column: Int64, full: Int64, rows: int, tile: int, block: int) -> Tables:
    order = np.lexsort((column, 1 - full, row))
    count, whole = np.bincount(row, minlength=rows), np.bincount(row, weights=full, minlength=rows)
    begin = np.cumsum(count) - count
    table = np.stack([np.arange(rows), begin, whole.astype(np.int64), count], axis=1)
    table = table[np.argsort(-count, kind="stable")]
    blocks = column[order] if len(column) else np.zeros(1, np.int64)
    return Tables(table.astype(np.int32), blocks.astype(np.int32), tile, block)
