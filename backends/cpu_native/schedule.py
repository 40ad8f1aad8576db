"""A branch of a plan as one array of 32-bit integers, which ``src/call.h`` reads.

    n, n_q, query heads of a key head, pools, whether there is a bias, inputs, facts, parts, where each
    part is; part: struct Part; sources: struct Source each; tiles; where each tile's runs end; runs;
    struct Groups

A run is a source (its number times two, plus one where the predicate must be applied), a first slot and a
number of slots.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from patterndsl.backends.cpu_native.bytecode import Data, Int32, Untranslatable, compile_term
from patterndsl.ir.expr import TRUE, Expr, as_expr
from patterndsl.ir.nodes import Fact, Pool
from patterndsl.ir.normal import TOKENS, Term, slot_index
from patterndsl.plan.grouping import before
from patterndsl.plan.grouping import facts as grouped_facts
from patterndsl.plan.plan import BranchPlan, Grouping, Membership, Part, Plan, Segment, Source

Int64 = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """``words``: the array; ``pools``: the sources of its keys, in the order in which it numbers them.
    ``facts``: likewise what it reads of q and k; ``rows``: for each part with groups which row of its fact a
    query at ``q`` reads."""

    words: Int32
    pools: tuple[Pool, ...]
    facts: tuple[Fact, ...]
    rows: tuple[Expr, ...]


class _Writer:
    def __init__(self, reserved: int) -> None:
        self.chunks: list[Int32] = [np.zeros(reserved, np.int32)]
        self.size = reserved

    def place(self, words: npt.ArrayLike) -> int:
        """Append; where it is."""
        chunk = np.ascontiguousarray(words, np.int32).reshape(-1)
        at, self.size = self.size, self.size + chunk.size
        self.chunks.append(chunk)
        return at


def make_schedule(plan: Plan, branch: BranchPlan, per_kv: int, has_bias: bool) -> Schedule:
    """Raises `bytecode.Untranslatable` where a predicate has no bytecode."""
    parts = [p for p in branch.parts if p.grouping is not None or any(g.tiles.size for g in p.rows)]
    pools = tuple(dict.fromkeys(s.pool for p in parts for s in p.sources))
    data = Data(plan.inputs, tuple(dict.fromkeys(fact for p in parts for fact in facts_of_part(p))))
    rows = tuple(p.grouping.row for p in parts if p.grouping is not None)
    writer, found, grouped = _Writer(8 + len(parts)), list[int](), 0
    for p in parts:
        found.append(writer.place(_part(writer, data, p, pools, grouped)))
        grouped += p.grouping is not None
    writer.chunks[0][:] = [
        plan.n,
        plan.n_q,
        per_kv,
        len(pools),
        has_bias,
        len(plan.inputs),
        len(data.facts),
        len(parts),
        *found,
    ]
    return Schedule(np.concatenate(writer.chunks), pools, data.facts, rows)


def _part(writer: _Writer, data: Data, part: Part, pools: tuple[Pool, ...], grouped: int) -> list[int]:
    sources = writer.place([_source(writer, data, s, pools) for s in part.sources])
    layout = part.layout
    queries = 0 if layout.queries is None else writer.place(layout.queries)
    tokens = 0 if layout.tokens is None else writer.place(layout.tokens)
    if part.grouping is not None:
        groups = writer.place(_groups(data, part.grouping, part.sources[0].term, grouped))
        return [part.block_q, 1, sources, 0, 0, 0, 0, 0, 0, 0, groups]
    tiles, ends, runs = tile_runs(part)
    rows = [len(tiles), writer.place(tiles), writer.place(ends), writer.place(runs)]
    places = 0 if layout.queries is None else layout.queries.size
    return [part.block_q, len(part.sources), sources, queries, places, tokens, *rows, 0]


def _groups(data: Data, g: Grouping | Membership, term: Term, number: int) -> list[int]:
    """As `struct Groups` has them; ``number``: of the part among those with groups."""
    masked = term.keep is not TRUE or term.count is not None
    if isinstance(g, Membership):
        facts = [data.facts.index(g.queries), data.facts.index(g.keys)]
        return [g.groups, 0, 0, *facts, 0, number, before(term.keep), masked]
    of_keys = column = 0
    if g.size is None:
        assert isinstance(g.key.value, Fact)
        of_keys = data.facts.index(g.key.value)
        column = _number(g.key.args[1]) if len(g.key.args) > 1 else 0
    columns = [_number(g.index.subs({"i": as_expr(i)})) for i in range(g.choices)]
    numbers = [g.groups, g.size or 0, g.choices, data.facts.index(g.fact), of_keys, column, number]
    return [*numbers, before(term.keep), masked, *columns]


def _number(e: Expr) -> int:
    if e.number is None:
        raise Untranslatable(f"the group of a key is in no column that is known: {e}")
    return int(e.number)


def facts_of_part(part: Part) -> list[Fact]:
    """What a part reads of q and k."""
    own = frozenset() if part.grouping is None else grouped_facts(part.grouping)
    terms = [e for s in part.sources for e in (s.term.keep, s.term.count) if e is not None]
    return sorted(own.union(*(e.facts() for e in terms)), key=repr)


def _source(writer: _Writer, data: Data, source: Source, pools: tuple[Pool, ...]) -> list[int]:
    pool = source.pool
    code = compile_term(source.term, str(slot_index(pool).value), data, writer.place)
    counted = pool.weight == "count" and pool.size > 1
    numbers = [pools.index(pool), pool is TOKENS, source.slots, pool.stride, pool.size, counted]
    return [*numbers, writer.place(code), 0]


def tile_runs(part: Part) -> tuple[Int32, Int64, Int64]:
    """Tiles [rows], the end of each one's runs [rows], and the runs [·, 3]."""
    each = [g.tiles for g in part.rows]
    tiles = np.concatenate(each)
    place = np.empty(len(tiles), np.int64)  # of each row: they are visited in the order of their tiles
    place[np.argsort(tiles)] = np.arange(len(tiles))
    found, first = [], 0
    for group, its in zip(part.rows, each, strict=True):
        for segment in group.segments:
            found += _runs(segment, first)
        first += len(its)
    empty = np.zeros(0, np.int64)
    row, what, start, count = (np.concatenate([empty, *(f[i] for f in found)]) for i in range(4))
    row = place[row]
    order = np.argsort(row, kind="stable")  # the runs of a row stay in the order of its segments
    row, what, start, count = (x[order] for x in (row, what, start, count))
    joined = np.zeros(len(row), bool)
    joined[1:] = (row[1:] == row[:-1]) & (what[1:] == what[:-1]) & (start[1:] == start[:-1] + count[:-1])
    heads = np.flatnonzero(~joined)
    count = np.add.reduceat(count, heads) if len(heads) else count
    ends = np.searchsorted(row[heads], np.arange(first), side="right")
    return np.sort(tiles), ends, np.stack([what[heads], start[heads], count], axis=1)


def _runs(segment: Segment, first: int) -> list[tuple[Int64, Int64, Int64, Int64]]:
    """For each run of a segment its row (rows count from ``first``), source and kind, first slot, length."""
    counts, starts = segment.counts.astype(np.int64), segment.starts.astype(np.int64)
    if not segment.contiguous:
        row = np.repeat(np.arange(len(counts)), counts)
        column = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        what = 2 * segment.source + np.asarray(segment.partial, np.int64)[column]
        start = starts[row, column]
        return [(row + first, what, start, np.full(len(row), segment.block, np.int64))]
    partial = segment.partial
    cuts = [0, *(j for j in range(1, len(partial)) if partial[j] != partial[j - 1]), len(partial)]
    found = []
    for a, b in itertools.pairwise(cuts):
        count = np.clip(counts - a, 0, b - a)
        row = np.flatnonzero(count)
        start = starts[row, 0] + a * segment.block
        what = np.full(len(row), 2 * segment.source + partial[a], np.int64)
        found.append((row + first, what, start, count[row] * segment.block))
    return found
