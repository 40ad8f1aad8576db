"""Bands: stretches of rows of a table that see the same columns, each relative to its own place.

Over a large box most comparisons are decided, and what is left of the predicate often depends on the distance
q − k alone, or on k alone, up to a period. Then the rows of one period stand for all rows of the box: they
are refined, and their runs repeated. `ir.invariance` proves it on what is left of the expression; where it
proves nothing, all rows are refined.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np

from patterndsl.diagnostics import PlanTooLarge, SpecError
from patterndsl.ir.expr import C, K, Q
from patterndsl.ir.interval import Env, Interval
from patterndsl.ir.invariance import invariance
from patterndsl.ir.normal import Term
from patterndsl.ir.ranges import simplify_over
from patterndsl.plan.tables import BYTES_PER_TILE, TABLE_LIMIT, Axis, Boxes, Grid, Int64, Runs

LEAST_ROWS = 4096  # of a box worth a look: fewer are refined in less time
TURNS = 3  # periods in a box, from which one stands for all
ATTEMPTS = 24  # boxes looked at in vain before the rest is refined


@dataclasses.dataclass(frozen=True)
class Band:
    """Rows ``first`` … ``stop`` − 1 of the columns ``left`` … ``right`` − 1. Row r + ``rows`` sees what row r
    sees, ``columns`` further on.

    ``period``: the first ``rows`` rows, alone, against all the columns that stand for one of the box's; its
    column 0 is the table's column ``origin``, which may be negative.
    """

    first: int
    stop: int
    left: int
    right: int
    rows: int
    columns: int
    origin: int
    period: Grid

    @property
    def turns(self) -> int:
        return -(-(self.stop - self.first) // self.rows)

    def repeated(self, runs: Runs, what: str) -> Runs:
        """The period's runs in every row of the band. Raises SpecError (PlanTooLarge)."""
        begin, last = self._turns(runs)
        number = np.maximum(last - begin + 1, 0)
        needed = int(number.sum()) * BYTES_PER_TILE
        if needed > TABLE_LIMIT:
            raise SpecError(PlanTooLarge(what=what, needed=needed, limit=TABLE_LIMIT))
        of = np.repeat(np.arange(len(number)), number)
        turn = np.arange(len(of)) + (begin - np.cumsum(number) + number)[of]
        move = self.origin + turn * self.columns
        start = np.maximum(runs.start[of] + move, self.left)
        stop = np.minimum(runs.stop[of] + move, self.right)
        return Runs(self.first + runs.row[of] + turn * self.rows, start, stop, runs.full[of])

    def _turns(self, runs: Runs) -> tuple[Int64, Int64]:
        """The first and the last turn in which each run lies, in part at least, in the band."""
        last = (self.stop - self.first - 1 - runs.row) // self.rows
        if not self.columns:
            return np.zeros_like(last), last
        begin = (self.left - self.origin - runs.stop) // self.columns + 1
        ahead = -(-(self.right - self.origin - runs.start) // self.columns) - 1
        return np.maximum(begin, 0), np.minimum(last, ahead)


def split(grid: Grid, leaf: int) -> tuple[list[Band], list[Boxes]]:
    """The bands of a table, and the boxes that are to be refined row by row. What is kept as a whole on the
    way is noted in the grid. ``leaf``: as in `Grid.refine`.

    The columns of the grid must hold consecutive positions, as those of tokens and chunks in their own order
    do.
    """
    bands: list[Band] = []
    rest: list[Boxes] = []
    boxes, vain = grid.whole(), 0
    while len(boxes.row):
        always, mixed = grid.judge(*grid.extent(boxes))
        grid.full(boxes, always)
        boxes = boxes._replace(row=boxes.row[mixed], column=boxes.column[mixed])
        if 1 << boxes.row_level < LEAST_ROWS or vain > ATTEMPTS or grid.axis.offset is None:
            return bands, [*rest, boxes]
        dull, small = np.zeros(len(boxes.row), bool), np.zeros(len(boxes.row), bool)
        for i in range(min(len(boxes.row), ATTEMPTS)):
            found = _band(grid, boxes, i)
            small[i], dull[i] = found is False, found is None
            vain += found is not True and not isinstance(found, Band)
            if isinstance(found, Band):
                bands.append(found)
        dull[ATTEMPTS:] = True
        if small.any():
            rest.append(boxes._replace(row=boxes.row[small], column=boxes.column[small]))
        boxes = grid.cut(boxes._replace(row=boxes.row[dull], column=boxes.column[dull]), leaf)
    return bands, rest


def _band(grid: Grid, boxes: Boxes, i: int) -> Band | bool | None:
    """The box as a band; None where what is left of the predicate is not the same from row to row; False
    where it is, but over too few periods."""
    axis, row, column = grid.axis, int(boxes.row[i]), int(boxes.column[i])
    first, left = row << boxes.row_level, column << boxes.column_level
    stop = min(first + (1 << boxes.row_level), axis.rows)
    right = min(left + (1 << boxes.column_level), grid.columns)
    assert axis.offset is not None
    env: Env = {
        "q": Interval(
            axis.offset + first * axis.block, axis.offset + min(stop * axis.block, axis.length) - 1
        ),
        grid.index: Interval(left * grid.unit, min(right * grid.unit, grid.slots) - 1),
    }
    keep, count = simplify_over(grid.term.keep, env), grid.term.count
    term = Term(keep, None if count is None else simplify_over(count, env))
    shift = _shift(term, grid, along=True)
    if shift is None or shift[0] > 1:
        shift = min((s for s in (shift, _shift(term, grid, along=False)) if s), default=None)
    if shift is None:
        return None
    rows, columns = shift
    turns = -(-(stop - first) // rows)
    if turns < TURNS:
        return False
    origin = left - (turns - 1) * columns
    slot = {"k": K, "c": C}[grid.index]
    moved = {grid.index: slot + origin * grid.unit}
    term = Term(term.keep.subs(moved), None if term.count is None else term.count.subs(moved))
    queries = Axis(axis.offset + first * axis.block, rows * axis.block, axis.block)
    period = Grid(term, queries, (right - origin) * grid.unit, grid.index, grid.unit, grid.scale)
    return Band(first, stop, left, right, rows, columns, origin, period)


def _shift(term: Term, grid: Grid, along: bool) -> tuple[int, int] | None:
    """The least rows and columns by which the term can be shifted: ``along`` the diagonal, or down the
    columns."""
    token = Fraction(grid.unit, grid.scale) if along else Fraction(0)
    slopes = {str(Q.value): Fraction(1), grid.index: token}
    periods = [invariance(e, slopes) for e in (term.keep, term.count) if e is not None]
    found = [p for p in periods if p is not None]
    if len(found) < len(periods):
        return None
    tokens = math.lcm(*found, grid.axis.block, grid.scale if along else 1)
    return tokens // grid.axis.block, tokens // grid.scale if along else 0
