"""Tile tables: which blocks of slots each tile of queries keeps, found by refining boxes.

The whole rectangle of (query tiles × slots) is one box; a box over which the predicate is mixed is cut into
halves along its longer sides, level by level, and all boxes of a level are judged at once by strided
intervals. A box that is kept or refused as a whole is never looked into. Work and memory are so in proportion
to the tiles that are kept: at the peak up to 128 bytes for each run of tiles in a row, of which a kept table
has 4 bytes for each run or gathered slot, and less where rows follow a rule (`plan.periodic`, `plan.bands`).
For `causal & (local(512) | global(tokens=[0:4]) | hierarchical(factor=4))` at 10M tokens that comes to 0.7
bytes a kept tile, and 9 at the peak; for a window, to 64 bytes at any length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from patterndsl.diagnostics import PlanTooLarge, SpecError
from patterndsl.ir.interval import ANY, Env, Interval, Truth, bounds, classify
from patterndsl.ir.normal import Term
from patterndsl.plan.leaves import closer

if TYPE_CHECKING:
    from patterndsl.plan.bands import Band

Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BYTES_PER_TILE = 128  # at the peak of building a table
TABLE_LIMIT = 2**31
SAMPLE = 4096  # boxes from which the size of a table is told
BATCH = 2**15  # boxes judged at once: their intervals stay in the cache
PENDING = 2**21  # mixed boxes held at once
WORTH = 0.02  # of mixed tiles found empty or full, from which all are looked at once more
WORTH_SLOTS = 0.3  # the same of single slots, which cost little


class Runs(NamedTuple):
    """Runs of consecutive blocks kept, sorted by row and first block; neighbours of one kind are joined.

    ``full``: every pair of the run is kept and counts once. Else the predicate has to be applied.
    """

    row: Int64
    start: Int64
    stop: Int64
    full: Bools


def chosen(runs: Runs, which: Bools) -> Runs:
    """Some of the runs."""
    if which.all():
        return runs
    return Runs(runs.row[which], runs.start[which], runs.stop[which], runs.full[which])


@dataclasses.dataclass(frozen=True)
class Axis:
    """The queries of a table. ``offset``: the position of the first one, None where unknown (then there is
    one row, which stands for every tile).
    """

    offset: int | None
    length: int
    block: int

    @property
    def rows(self) -> int:
        return 1 if self.offset is None else -(-self.length // self.block)

    def positions(self, row: Int64, level: int) -> Interval:
        """The queries of rows ``row << level`` … of 2**level rows, real ones only."""
        if self.offset is None:
            return ANY
        lo = (row << level) * self.block
        hi = np.minimum(lo + (self.block << level), self.length) - 1
        return Interval(lo + self.offset, hi + self.offset)


class Boxes(NamedTuple):
    """Boxes of 2**row_level rows × 2**column_level columns, by their numbers."""

    row_level: int
    column_level: int
    row: Int64
    column: Int64


class Grid:
    """The boxes of one source: rows of query tiles against columns of ``unit`` slots each.

    ``scale``: the tokens that one column stands for, so that boxes are cut along their longer side. ``index``
    is the slot's variable.
    """

    def __init__(self, term: Term, axis: Axis, slots: int, index: str, unit: int, scale: int) -> None:
        self.term, self.axis, self.slots, self.index = term, axis, slots, index
        self.unit, self.scale = unit, scale
        self.columns = -(-slots // unit)
        self.found: list[Runs] = []
        self.kept = 0

    def whole(self) -> Boxes:
        """The one box of everything."""
        zero = np.zeros(1, np.int64)
        return Boxes((self.axis.rows - 1).bit_length(), (self.columns - 1).bit_length(), zero, zero)

    def judge(self, q: Interval, slots: Interval) -> tuple[Bools, Bools]:
        """Kept as a whole (and counted once), and kept in part, of boxes of queries and slots."""
        size = len(slots.lo)
        always, mixed = np.zeros(size, bool), np.zeros(size, bool)
        for at in range(0, size, BATCH):
            part = slice(at, at + BATCH)
            queries = q if q is ANY else Interval(q.lo[part], q.hi[part])
            truth = self.truth(queries, Interval(slots.lo[part], slots.hi[part]))
            always[part], mixed[part] = truth.always, np.logical_not(truth.always | truth.never)
        return always, mixed

    def truth(self, q: Interval, slots: Interval) -> Truth:
        """Whether boxes of queries and slots are kept as a whole, each pair counted once, or not at all."""
        return self.of({"q": q, self.index: slots})

    def of(self, env: Env) -> Truth:
        """The same of boxes of the term's variables."""
        always, never = classify(self.term.keep, env)
        if self.term.count is not None and np.any(always):
            count = bounds(self.term.count, env)
            always = always & (count.lo == 1) & (count.hi == 1)
        return Truth(always, never)

    def extent(self, boxes: Boxes) -> tuple[Interval, Interval]:
        """The queries and the slots of boxes."""
        lo = (boxes.column << boxes.column_level) * self.unit
        hi = np.minimum(lo + (self.unit << boxes.column_level), self.slots) - 1
        return self.axis.positions(boxes.row, boxes.row_level), Interval(lo, hi)

    def refine(self, boxes: Boxes, leaf: int, what: str) -> Iterator[Boxes]:
        """Settle the boxes; what is kept as a whole is noted as found. Yields what stays mixed at one row ×
        2**leaf columns, in pieces. Raises SpecError (PlanTooLarge) as soon as the tiles that are to come are
        seen not to fit.
        """
        last = 0
        while True:
            always, mixed = self.judge(*self.extent(boxes))
            self.full(boxes, always)
            boxes = boxes._replace(row=boxes.row[mixed], column=boxes.column[mixed])
            if not len(boxes.row):
                return
            if boxes.row_level == 0 and boxes.column_level <= leaf:
                yield boxes
                return
            self._predict(boxes, last, leaf, what)
            if len(boxes.row) > PENDING:  # depth first: a whole level would take too much memory
                for at in range(0, len(boxes.row), PENDING):
                    part = slice(at, at + PENDING)
                    piece = boxes._replace(row=boxes.row[part], column=boxes.column[part])
                    yield from self.refine(self.cut(piece, leaf), leaf, what)
                return
            last = len(boxes.row)
            boxes = self.cut(boxes, leaf)

    def cut(self, boxes: Boxes, leaf: int) -> Boxes:
        """Halves along the longer side, or both."""
        tall = self.axis.block << boxes.row_level
        wide = self.scale << boxes.column_level
        rows = boxes.row_level > 0 and (2 * tall > wide or boxes.column_level <= leaf)
        columns = boxes.column_level > leaf and (2 * wide > tall or boxes.row_level == 0)
        row, column = boxes.row, boxes.column
        if rows:
            row, column = np.repeat(row * 2, 2), np.repeat(column, 2)
            row[1::2] += 1
        if columns:
            row, column = np.repeat(row, 2), np.repeat(column * 2, 2)
            column[1::2] += 1
        row_level, column_level = boxes.row_level - rows, boxes.column_level - columns
        exists = ((row << row_level) < self.axis.rows) & ((column << column_level) < self.columns)
        return Boxes(row_level, column_level, row[exists], column[exists])

    def full(self, boxes: Boxes, always: Bools) -> None:
        """Note those of the boxes that are kept as a whole."""
        row, column = boxes.row[always], boxes.column[always]
        if not len(row):
            return
        first = row << boxes.row_level
        rows = np.minimum(first + (1 << boxes.row_level), self.axis.rows) - first
        start = column << boxes.column_level
        stop = np.minimum(start + (1 << boxes.column_level), self.columns)
        self.kept += int(rows.sum())
        row = np.repeat(first - np.cumsum(rows) + rows, rows) + np.arange(int(rows.sum()))
        self.found.append(Runs(row, np.repeat(start, rows), np.repeat(stop, rows), np.ones(len(row), bool)))

    def partial(self, boxes: Boxes, worth: float) -> None:
        """Note mixed boxes of one row, except those that a closer look finds empty or full (see `closer`)."""
        empty, full = closer(self.judge, *self.extent(boxes), worth)
        self.full(boxes, full)
        held = ~(empty | full)
        row, start = boxes.row[held], boxes.column[held] << boxes.column_level
        stop = np.minimum(start + (1 << boxes.column_level), self.columns)
        self.found.append(joined(row, start, stop, np.zeros(len(start), bool)))

    def _predict(self, boxes: Boxes, last: int, leaf: int, what: str) -> None:
        """Refuse what would not fit. Where the mixed boxes grow so fast that they may not, a sample tells."""
        now = len(boxes.row)
        if now < SAMPLE:
            return
        levels = max(boxes.row_level, boxes.column_level - leaf)
        growth = min(max(now / last if last else 1.0, 1.0), 4.0)
        tiles = now * growth**levels
        if self._bytes(tiles) > TABLE_LIMIT:
            tiles = self._sampled(boxes, leaf)
        if self._bytes(tiles) > TABLE_LIMIT:
            raise SpecError(PlanTooLarge(what=what, needed=self._bytes(tiles), limit=TABLE_LIMIT))

    def _bytes(self, tiles: float) -> int:
        return int((tiles + self.kept) * BYTES_PER_TILE)

    def _sampled(self, boxes: Boxes, leaf: int) -> float:
        """About how many tiles mixed boxes come to: a random sample is cut and judged level by level, each
        time a sample of what is left (Knuth 1975, Estimating the efficiency of backtrack programs).
        """
        draw = np.random.default_rng(0)
        share, tiles = 1.0, 0.0  # how many boxes one of the sample stands for
        while boxes.row_level > 0 or boxes.column_level > leaf:
            if len(boxes.row) > SAMPLE:
                share *= len(boxes.row) / SAMPLE
                some = np.sort(draw.choice(len(boxes.row), SAMPLE, replace=False))
                boxes = boxes._replace(row=boxes.row[some], column=boxes.column[some])
            boxes = self.cut(boxes, leaf)
            always, mixed = self.judge(*self.extent(boxes))
            tiles += share * float(always.sum()) * (1 << boxes.row_level)
            boxes = boxes._replace(row=boxes.row[mixed], column=boxes.column[mixed])
        return tiles + share * len(boxes.row)

    def runs(self) -> Runs:
        """Everything found so far."""
        if not self.found:
            none = np.zeros(0, np.int64)
            return Runs(none, none, none, np.zeros(0, bool))
        pieces = [np.concatenate(x) for x in zip(*self.found, strict=True)]
        self.found = []  # their memory is needed now
        self.found = [joined(*pieces)]
        return self.found[0]


def joined(row: Int64, start: Int64, stop: Int64, full: Bools) -> Runs:
    """Sorted runs, adjacent ones of one kind joined."""
    if not len(row):
        return Runs(row, start, stop, full)
    place = row * (int(start.max()) + 1) + start
    if np.any(place[1:] < place[:-1]):
        order = np.argsort(place)
        del place
        row, start, stop, full = row[order], start[order], stop[order], full[order]
    fresh = np.ones(len(row), bool)
    fresh[1:] = (row[1:] != row[:-1]) | (start[1:] != stop[:-1]) | (full[1:] != full[:-1])
    if fresh.all():
        return Runs(row, start, stop, full)
    head = np.flatnonzero(fresh)
    tail = np.append(head[1:], len(row)) - 1
    return Runs(row[head], start[head], stop[tail], full[head])


def without_ragged(runs: Runs, columns: int, ragged: bool) -> Runs:
    """Full runs that reach a last block which is not whole lose it to a partial run."""
    at = np.flatnonzero(runs.full & (runs.stop == columns))
    if not ragged or not len(at):
        return runs
    row = np.insert(runs.row, at + 1, runs.row[at])
    start = np.insert(runs.start, at + 1, columns - 1)
    stop, full = runs.stop.copy(), np.insert(runs.full, at + 1, False)
    stop[at] = columns - 1
    stop = np.insert(stop, at + 1, columns)
    real = stop > start
    return joined(row[real], start[real], stop[real], full[real])


@dataclasses.dataclass(frozen=True)
class Table:
    """The runs that each row keeps of one source, in blocks of ``block`` slots. ``tiled``: blocks are tiles
    of tokens or chunks, judged full or partial one by one; else single slots, to be gathered.
    """

    runs: Runs
    block: int
    tiled: bool


def token_table(term: Term, axis: Axis, n: int, block: int, what: str) -> Table:
    """The blocks of tokens that each tile of queries keeps."""
    grid = Grid(term, axis, n, "k", block, block)
    return tiled(grid, what, _areas(grid, 0))


Area: TypeAlias = "tuple[Grid, Boxes, Band | None]"


def _areas(grid: Grid, leaf: int) -> Iterator[Area]:
    """What is to be refined: one period of each band of the grid, and what is in none."""
    from patterndsl.plan.bands import split

    bands, rest = split(grid, leaf)
    yield from ((grid, boxes, None) for boxes in rest)
    yield from ((band.period, band.period.whole(), band) for band in bands)


def tiled(grid: Grid, what: str, areas: Iterable[Area] | None = None) -> Table:
    """The table of a grid whose columns are blocks."""
    for area, boxes, band in areas or [(grid, grid.whole(), None)]:
        for piece in area.refine(boxes, 0, what):
            area.partial(piece, WORTH)
        if band is not None:
            grid.found.append(band.repeated(area.runs(), what))
    ragged = grid.slots % grid.unit != 0
    return Table(without_ragged(grid.runs(), grid.columns, ragged), grid.unit, True)


FEW = 4  # blocks of chunks in a row, up to which its chunks are listed one by one


def chunk_table(
    term: Term, axis: Axis, chunks: int, stride: int, block: int, what: str, index: str = "c"
) -> Table:
    """The chunks (or tokens, as chunks of one) that each tile of queries keeps: one by one where they are
    few, else in blocks.

    A level of a hierarchy has a few dozen chunks in sight of a tile. A level that sees everything above it is
    a matter of tiles, as tokens are.
    """
    leaf = min(block.bit_length() - 1, (chunks - 1).bit_length())
    grid = Grid(term, axis, chunks, index, 1, stride)
    coarse, seen = _coarse(_areas(grid, leaf), leaf, FEW * axis.rows << leaf, what)
    if leaf and (seen + _size(grid)) >> leaf > FEW * axis.rows:
        blocks = Grid(term, axis, chunks, index, 1 << leaf, stride << leaf)
        return tiled(blocks, what, _areas(blocks, 0))
    for area, pieces, band in coarse:
        for boxes in pieces:
            for fine in area.refine(area.cut(boxes, 0), 0, what) if leaf else (boxes,):
                area.partial(fine, WORTH_SLOTS)
        if band is not None:
            grid.found.append(band.repeated(area.runs(), what))
    return Table(grid.runs(), 1, False)


def _coarse(
    areas: Iterable[Area], leaf: int, enough: int, what: str
) -> tuple[list[tuple[Grid, list[Boxes], Band | None]], int]:
    """The mixed blocks of each area, and the slots in them (and in what bands keep as a whole); no more once
    there are ``enough``.
    """
    coarse: list[tuple[Grid, list[Boxes], Band | None]] = []
    seen = 0
    for area, start, band in areas:
        turns = band.turns if band is not None else 1
        pieces: list[Boxes] = []
        for boxes in area.refine(start, leaf, what):
            pieces.append(boxes)
            seen += turns * len(boxes.row) << leaf
            if seen > enough:
                return coarse, seen
        coarse.append((area, pieces, band))
        seen += turns * _size(area) if band is not None else 0
    return coarse, seen


def _size(grid: Grid) -> int:
    """Columns of all rows that are found to be kept as a whole."""
    return sum(int((r.stop - r.start).sum()) for r in grid.found)
