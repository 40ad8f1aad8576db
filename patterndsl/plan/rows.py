"""Rows of a table, grouped by schedule: which tiles of queries run one program, and what that program visits.

Each group is a piece of compiled code, so there are few of them (`MOST_GROUPS`). In order of preference a row
is

- in a group of rows with exactly the same runs of blocks (the interior of a window): nothing is padded;
- in a loop over its blocks, where they are too many to be taken at once (`ONE_SHOT`): nothing is padded
  either;
- in a bucket of rows with about as many blocks: padded to the widest of them.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import RowGroup, Segment
from patterndsl.plan.tables import Bools, Int64, Runs, Table, chosen

MOST_GROUPS = 8
MOST_EXACT = 4
MOST_SPANS = 4  # of a row that is visited span by span
SHARE = 8  # an exact group does at least one part in so many of the work
ONE_SHOT = 4096  # slots that a row takes at once; more are looped over
STEP = 512  # slots of one turn of a loop
PADDING = 1.15  # padded ÷ real slots that is not worth another group
SLACK = 0.05  # padding ÷ all slots that is not worth another group
LOOPED = 0.25  # padding ÷ real slots, from which a loop is worth its turns
GAPS = 1.25  # slots of a span ÷ slots kept in it, up to which the span is sliced as a whole


@dataclasses.dataclass(frozen=True)
class RowTable:
    """A source's table with what grouping asks of it: for each row its blocks, and where its runs are."""

    source: int
    table: Table
    rows: int

    @property
    def runs(self) -> Runs:
        return self.table.runs

    def blocks(self, partial: bool = False) -> Int64:
        """The number of blocks that each row keeps. ``partial``: of those that it does not keep whole."""
        size = self.runs.stop - self.runs.start
        if partial:
            size = np.where(self.runs.full, 0, size)
        return np.bincount(self.runs.row, weights=size, minlength=self.rows).astype(np.int64)

    def spans(self) -> Int64:
        """The number of stretches without a gap, of each row."""
        return np.bincount(self.runs.row[~self.touching()], minlength=self.rows)

    def touching(self) -> Bools:
        """Whether a run starts where the one before it, in the same row, stops."""
        r = self.runs
        touch = np.zeros(len(r.row), bool)
        touch[1:] = (r.row[1:] == r.row[:-1]) & (r.start[1:] == r.stop[:-1])
        return touch

    def signature(self) -> npt.NDArray[np.uint64]:
        """A hash of each row's runs: lengths, kinds and whether they touch, but not where they are."""
        r = self.runs
        first = np.searchsorted(r.row, np.arange(self.rows))
        ordinal = np.arange(len(r.row)) - first[r.row]
        word = ((r.stop - r.start) * 4 + r.full * 2 + self.touching()).astype(np.uint64)
        total = np.zeros(self.rows, np.uint64)
        np.add.at(total, r.row, _mix(word * np.uint64(0x9E3779B97F4A7C15) ^ _mix(ordinal.astype(np.uint64))))
        return _mix(total + np.uint64(self.source))

    def of(self, rows: Int64) -> Runs:
        """The runs of some rows (ascending), their ``row`` being the place among those."""
        place = np.full(self.rows, -1, np.int64)
        place[rows] = np.arange(len(rows))
        at = place[self.runs.row]
        return chosen(self.runs._replace(row=at), at >= 0)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def group_rows(tables: list[Table], rows: int) -> tuple[RowGroup, ...]:
    """Groups of the rows that keep anything, from one table for each source."""
    every = [RowTable(i, t, rows) for i, t in enumerate(tables) if len(t.runs.row)]
    tiled = [t for t in every if t.table.tiled]
    width = _total([t.blocks() * t.table.block for t in tiled], rows)
    gathered = _total([t.blocks() for t in every if not t.table.tiled], rows)
    kept = np.flatnonzero(width + gathered)
    slack = SLACK * float((width + gathered).sum())
    narrow, wide = kept[width[kept] <= ONE_SHOT], kept[width[kept] > ONE_SHOT]
    exact, rest = _exact(tiled, narrow, width, rows)
    padded = [rest[b] for b in buckets(width[rest], 3, slack)]
    added = _padding(padded, width)
    worth_turns = added > max(LOOPED * float(width[rest].sum()), slack, _of_turns(width[rest]))
    if len(wide) >= len(rest) or worth_turns:
        wide, padded = np.sort(np.concatenate([wide, rest])), []  # a loop takes any number of blocks
    looped = [wide[b] for b in buckets(width[wide], 1 if _sliced(tiled, wide) else 2, slack)]
    split = [("exact", g) for g in exact] + [("padded", g) for g in padded] + [("looped", g) for g in looped]
    partial = _total([t.blocks(partial=True) * t.table.block for t in tiled], rows)
    split = _apart(_apart(split, partial, slack), gathered, slack)
    return tuple(RowGroup(Periodic.of(g), _segments(every, g, how)) for how, g in split)


def _padding(groups: list[Int64], width: Int64) -> float:
    """Slots that padding each row to the widest of its group adds."""
    return float(sum(len(g) * width[g].max() - width[g].sum() for g in groups))


def _of_turns(width: Int64) -> float:
    """Slots that a loop adds, as its last turn is as wide as the others."""
    return float((-width % STEP).sum())


def _total(parts: list[Int64], rows: int) -> Int64:
    return sum(parts, np.zeros(rows, np.int64))


def _exact(tiled: list[RowTable], narrow: Int64, width: Int64, rows: int) -> tuple[list[Int64], Int64]:
    """Groups of rows with the same runs, for those that do a fair part of the work; and the other rows."""
    if not len(narrow):
        return [], narrow
    spans = _total([t.spans() for t in tiled], rows)
    key = np.zeros(rows, np.uint64)
    for t in tiled:
        key = _mix(key ^ t.signature())
    _, inverse, count = np.unique(key[narrow], return_inverse=True, return_counts=True)
    work = np.bincount(inverse, weights=width[narrow] + 1.0)
    groups = []
    for i in np.argsort(-work, kind="stable")[:MOST_EXACT]:
        members = narrow[inverse == i]
        alone = count[i] == 1 and len(narrow) > 2
        if work[i] * SHARE >= work.sum() and not alone and spans[members[0]] <= MOST_SPANS:
            groups.append(members)
    taken = np.concatenate(groups) if groups else narrow[:0]
    return groups, np.setdiff1d(narrow, taken)


def _sliced(tiled: list[RowTable], rows: Int64) -> bool:
    """Each row has at most one run of a kind, so that tables take one number a row however wide it is."""
    for t in tiled:
        runs = t.of(rows)
        for kind in (True, False):
            if np.any(np.bincount(runs.row[runs.full == kind], minlength=1) > 1):
                return False
    return True


def _apart(split: list[tuple[str, Int64]], slots: Int64, slack: float) -> list[tuple[str, Int64]]:
    """Split the groups whose rows differ much in slots of a kind, while there may be more groups: each kind
    is padded to the widest of a group."""
    for i in sorted(range(len(split)), key=lambda i: -len(split[i][1])):
        how, rows = split[i]
        parts = buckets(slots[rows], 2, slack)
        if len(parts) > 1 and len(split) < MOST_GROUPS:
            split[i] = (how, rows[parts[0]])
            split.append((how, rows[parts[1]]))
    return split


LEVELS = 64  # distinct widths that `buckets` tells apart


def buckets(width: Int64, most: int, slack: float) -> list[Int64]:
    """Partition rows by width into at most ``most`` groups, so that padding each to its widest row costs
    least. Returns indices; fewer groups where these add no more than ``slack``, or hardly anything
    (`PADDING`).
    """
    if not len(width):
        return []
    grain = -(-int(width.max()) // LEVELS) or 1
    level = -(-width // grain)
    values, count = np.unique(level, return_counts=True)
    before = np.concatenate([[0], np.cumsum(count)])
    size = len(values)
    # cost[i, j]: one group of the widths i … j − 1
    cost = np.where(
        np.arange(size + 1)[:, None] < np.arange(size + 1)[None, :],
        (before[None, :] - before[:, None]) * np.concatenate([[0], values])[None, :].astype(float),
        np.inf,
    )
    best, cuts = cost[0].copy(), [np.zeros(size + 1, np.int64)]
    real = float(width.sum()) / grain
    while len(cuts) < most and best[size] > max(PADDING * real, real + slack / grain):
        via = best[:, None] + cost
        cuts.append(np.argmin(via, axis=0))
        best = np.min(via, axis=0)
    ends, at = [size], size
    for cut in reversed(cuts[1:]):
        at = int(cut[at])
        ends.append(at)
    ends = sorted({*ends, 0})
    place = np.searchsorted(values, level)
    return [np.flatnonzero((a <= place) & (place < b)) for a, b in itertools.pairwise(ends)]


# -- segments --------------------------------------------------------------------------------------------


def _segments(every: list[RowTable], rows: Int64, how: str) -> tuple[Segment, ...]:
    found: list[Segment] = []
    for t in every:
        runs = t.of(rows)
        if not len(runs.row):
            continue
        if not t.table.tiled:
            found.append(_slots(t, runs, len(rows)))
        elif how == "exact":
            found += _same_runs(t, runs, len(rows))
        else:
            found += _kinds(t, runs, len(rows), STEP if how == "looped" else ONE_SHOT)
    return tuple(found)


def _same_runs(t: RowTable, runs: Runs, rows: int) -> list[Segment]:
    """Rows with the same runs: one slice for each stretch of touching runs."""
    start, stop = runs.start.reshape(rows, -1), runs.stop.reshape(rows, -1)
    length, full = (stop - start)[0], runs.full.reshape(rows, -1)
    touch = start[:, 1:] == stop[:, :-1]
    if np.any(stop - start != length) or np.any(full != full[0]) or np.any(touch != touch[:1]):
        raise AssertionError("rows of one signature differ")  # a collision of 64-bit hashes
    heads = [0, *(np.flatnonzero(~touch[0]) + 1), len(length)]
    found = []
    for a, b in itertools.pairwise(heads):
        partial = tuple(np.repeat(~full[0, a:b], length[a:b]).tolist())
        counts = Periodic.constant(np.asarray(len(partial)), rows)
        starts = Periodic.of(start[:, a : a + 1] * t.table.block)
        found.append(Segment(t.source, t.table.block, starts, counts, True, partial))
    return found


def _kinds(t: RowTable, runs: Runs, rows: int, at_once: int) -> list[Segment]:
    """Rows that differ: full and partial blocks apart, each in as few slices as its runs, or gathered; in a
    loop where they are more slots than ``at_once``.
    """
    found = []
    for kind in (True, False):
        part = chosen(runs, runs.full == kind)
        if not len(part.row):
            continue
        # Counted from a row's last run, as the runs next to the diagonal correspond.
        last = np.searchsorted(part.row, np.arange(rows), side="right") - 1
        ordinal = last[part.row] - np.arange(len(part.row))
        size = part.stop - part.start
        width = int(np.bincount(part.row, weights=size).max())
        spans = range(int(ordinal.max()) + 1)
        longest = [int(size[ordinal == i].max()) for i in spans[:MOST_SPANS]]
        if len(spans) <= MOST_SPANS and sum(longest) <= GAPS * width:
            for i in reversed(spans):
                one = chosen(part, ordinal == i)
                found.append(_slice(t, one, rows, longest[i], not kind, at_once))
        else:
            found.append(_gather(t, part, rows, width, not kind, at_once))
    return found


def _slice(t: RowTable, runs: Runs, rows: int, width: int, partial: bool, at_once: int) -> Segment:
    """At most one run a row."""
    starts, counts = np.zeros((rows, 1), np.int64), np.zeros(rows, np.int32)
    starts[runs.row, 0] = runs.start * t.table.block
    counts[runs.row] = runs.stop - runs.start
    return Segment(
        t.source,
        t.table.block,
        Periodic.of(starts),
        Periodic.of(counts),
        True,
        (partial,) * width,
        _step(width, t.table.block, at_once),
    )


def _gather(t: RowTable, runs: Runs, rows: int, width: int, partial: bool, at_once: int) -> Segment:
    size = runs.stop - runs.start
    row = np.repeat(runs.row, size)
    block = np.repeat(runs.start - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
    counts = np.bincount(row, minlength=rows)
    before = np.cumsum(counts) - counts
    starts = np.zeros((rows, width), np.int32)
    filled = counts > 0
    starts[filled] = (block[(before + counts - 1)[filled]] * t.table.block)[:, None]
    starts[row, np.arange(len(row)) - before[row]] = block * t.table.block
    return Segment(
        t.source,
        t.table.block,
        Periodic.of(starts),
        Periodic.of(counts),
        False,
        (partial,) * width,
        _step(width, t.table.block, at_once),
    )


def _slots(t: RowTable, runs: Runs, rows: int) -> Segment:
    """Single slots: one slice where they lie close together, else gathered."""
    kept = np.bincount(runs.row, weights=runs.stop - runs.start, minlength=rows).astype(np.int64)
    first = np.full(rows, np.iinfo(np.int64).max)
    last = np.zeros(rows, np.int64)
    np.minimum.at(first, runs.row, runs.start)
    np.maximum.at(last, runs.row, runs.stop)
    first = np.where(kept > 0, first, 0)
    full = bool(runs.full.all())
    reach, width = int((last - first).max()), int(kept.max())
    if reach > GAPS * width:
        return _gather(t, runs, rows, width, not full, ONE_SHOT)
    whole = np.flatnonzero(kept > 0)
    gaps = bool(np.any(last - first != kept))
    span = Runs(whole, first[whole], last[whole], np.ones(len(whole), bool))
    return _slice(t, span, rows, reach, gaps or not full, ONE_SHOT)


def _step(width: int, block: int, at_once: int) -> int:
    """Blocks of one turn of a loop; 0 where all are taken at once."""
    return max(STEP // block, 1) if width * block > at_once else 0
