"""A part of a plan: the slots that a branch, or a piece of one, keeps, in tiles of one layout."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from patterndsl.diagnostics import DivisionByZero, PlanTooLarge, SpecError, ValueTooLarge
from patterndsl.ir.expr import FALSE
from patterndsl.ir.interval import ANY, EXACT, Env, Interval, Truth, bounds
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS, Branch, Term, slot_index
from patterndsl.ir.ranges import INT32, BeyondInt32, ZeroDivisor, check_ranges, simplify_over
from patterndsl.plan.digits import Places, names, over_coordinates
from patterndsl.plan.grouping import grouping_of, most_keys
from patterndsl.plan.orders import Columns, Gathered, Grouped, Identity, Order
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import IDENTITY, Layout, Part, RowGroup, Segment, Source
from patterndsl.plan.rows import group_rows
from patterndsl.plan.tables import (
    TABLE_LIMIT,
    Axis,
    Grid,
    Runs,
    Table,
    chosen,
    chunk_table,
    tiled,
    token_table,
)

BYTES_PER_PLACE = (
    16  # of a layout: what stands at it, how many places before it do not stand empty, on each side
)


def part_in(branch: Branch, order: Order, axis: Axis, n: int, block_k: int) -> Part:
    """The part that keeps what ``branch`` keeps, in an order of the queries and tokens.

    ``axis``: the queries and how many are in a tile; ``block_k``: keys in a tile. Orders other than the
    identity are for tokens alone, and for queries of known positions. Raises SpecError as `build_plan` does.
    """
    if isinstance(order, Identity):
        return _as_they_come(branch, axis, n, block_k)
    if axis.offset is None or any(pool is not TOKENS for pool in branch):
        raise ValueError(f"the order {order} is for tokens, and queries of known positions")
    if TOKENS not in branch:
        return Part(IDENTITY, (), (), axis.block)
    if isinstance(order, Grouped):
        return _grouped(branch[TOKENS], axis, n, block_k)
    bound = bind(branch[TOKENS], TOKENS, axis, n, n)
    if isinstance(order, Gathered):
        table = chunk_table(bound, axis, n, 1, block_k, TOKEN_TABLE, "k")
        return _part(Layout(str(order)), axis, [(Source(TOKENS, bound, n), table)])
    tokens = Places(0, n, order.scheme(block_k), block_k)
    queries = None
    if not isinstance(order, Columns):
        queries = Places(axis.offset, axis.length, order.scheme(axis.block), axis.block)
    needed = BYTES_PER_PLACE * (tokens.size + (queries.size if queries is not None else 0))
    if needed > TABLE_LIMIT:
        raise SpecError(PlanTooLarge(what=f"the order {order}", needed=needed, limit=TABLE_LIMIT))
    grid = PlacesGrid(bound, axis, block_k, queries, tokens)
    layout = Layout(str(order), None if queries is None else queries.order, tokens.order)
    return _part(layout, grid.axis, [(Source(TOKENS, bound, tokens.size), tiled(grid, TOKEN_TABLE))])


TOKEN_TABLE = "the table of tokens"


def _grouped(term: Term, axis: Axis, n: int, block_k: int) -> Part:
    found = grouping_of(term.keep, n)
    if found is None:
        raise ValueError(f"no groups of tokens in {term.keep}")
    grouping, rest = found
    bound = bind(Term(rest, term.count), TOKENS, axis, n, n)
    if bound.keep is FALSE:
        return Part(IDENTITY, (), (), axis.block)
    block_k = min(block_k, most_keys(grouping, n) or block_k)
    return Part(Layout("grouped"), (Source(TOKENS, bound, n),), (), axis.block, grouping, block_k)


def _as_they_come(branch: Branch, axis: Axis, n: int, block_k: int) -> Part:
    found = []
    for pool, term in branch.items():
        slots = n if pool is TOKENS else pool.chunks(n)
        bound = bind(term, pool, axis, n, slots)
        if bound.keep is FALSE:
            continue
        if pool is TOKENS:
            table = token_table(bound, axis, n, block_k, TOKEN_TABLE)
        else:
            what = f"the table of summaries of level {pool.level}"
            table = chunk_table(bound, axis, slots, pool.stride, block_k, what)
        found.append((Source(pool, bound, slots), table))
    return _part(IDENTITY, axis, found)


def _part(layout: Layout, axis: Axis, found: list[tuple[Source, Table]]) -> Part:
    """The part of some sources, each with its table; those that keep nothing are left out."""
    found = [(source, table) for source, table in found if len(table.runs.row)]
    rows = group_rows([table for _, table in found], axis.rows)
    if axis.offset is None:
        rows = tuple(_for_every_tile(g, -(-axis.length // axis.block)) for g in rows)
    return Part(layout, tuple(source for source, _ in found), rows, axis.block)


class PlacesGrid(Grid):
    """A grid of places: what is judged are runs of places, by the coordinates of what stands there.

    ``queries``: None where these come as they are.
    """

    def __init__(self, term: Term, axis: Axis, block: int, queries: Places | None, tokens: Places) -> None:
        places = {"k": tokens}
        env: Env = {}
        if queries is not None:
            places["q"] = queries
            axis = Axis(0, queries.size, axis.block)
        else:
            assert axis.offset is not None
            env = {"q": Interval(axis.offset, axis.offset + axis.length - 1)}
        keep = over_coordinates(term.keep, places, env)
        count = None if term.count is None else over_coordinates(term.count, places, env)
        super().__init__(Term(keep, count), axis, tokens.size, "k", block, block)
        self.queries, self.tokens = queries, tokens

    def truth(self, q: Interval, slots: Interval) -> Truth:
        env: dict[str, Interval] = {"q": q}
        if self.queries is not None:
            span = self.queries.span(q.lo, q.hi)
            env = dict(zip(names("q", self.queries.scheme), span, strict=True))
        span = self.tokens.span(slots.lo, slots.hi)
        env |= zip(names("k", self.tokens.scheme), span, strict=True)
        always, never = self.of(env)
        real = self.tokens.real(slots.lo, slots.hi)
        never = never | (real == 0)
        if self.queries is not None:
            never = never | (self.queries.real(q.lo, q.hi) == 0)
        return Truth(always & (real == slots.hi - slots.lo + 1) & ~never, never)

    def runs(self) -> Runs:
        """Everything found so far, but for tiles of empty places alone, which a large box may have."""
        found = super().runs()
        if self.queries is None:
            return found
        first = found.row * self.axis.block
        return chosen(found, self.queries.real(first, first + self.axis.block - 1) > 0)


def bind(term: Term, pool: Pool, axis: Axis, n: int, slots: int) -> Term:
    """The term, simplified for the positions that there are and checked to be computable in int32."""
    return _bound(term, pool, axis.offset, axis.length, n, slots)


@functools.lru_cache(maxsize=256)  # tiles of several sizes are tried
def _bound(term: Term, pool: Pool, offset: int | None, length: int, n: int, slots: int) -> Term:
    slot = str(slot_index(pool).value)
    q = ANY if offset is None else Interval(offset, offset + length - 1)
    env: Env = {"q": q, slot: Interval(0, slots - 1)}
    keep = simplify_over(term.keep, env)
    count = None if term.count is None else simplify_over(term.count, env)
    if count is not None and bounds(count, env, xp=EXACT).hi <= 1:
        count = None  # what is kept counts at least once
    if offset is None:  # offsets at run time leave queries within a sequence's length of the keys
        env = {**env, "q": Interval(-(n + length), n + length)}
    for e in (keep, count):
        if e is None:
            continue
        try:
            check_ranges(e, env)
        except BeyondInt32 as error:
            raise SpecError(ValueTooLarge(expression=str(error.expression), limit=INT32 - 1, n=n)) from None
        except ZeroDivisor as error:
            raise SpecError(DivisionByZero(operator=error.operator, n=n)) from None
    return Term(keep, count)


def _for_every_tile(group: RowGroup, tiles: int) -> RowGroup:
    """One row that stands for all tiles."""

    def repeated(s: Segment) -> Segment:
        starts, counts = (Periodic.constant(x.values[0], tiles) for x in (s.starts_by_row, s.counts_by_row))
        return dataclasses.replace(s, starts_by_row=starts, counts_by_row=counts)

    tiles_by_row = Periodic(tiles, np.zeros(1, np.int32), np.ones((), np.int32))
    return RowGroup(tiles_by_row, tuple(repeated(s) for s in group.segments))
