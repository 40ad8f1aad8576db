"""From a pattern, bound at a length, to its plan."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from patterndsl.diagnostics import DivisionByZero, PlanTooLarge, SpecError, ValueTooLarge
from patterndsl.ir.expr import FALSE
from patterndsl.ir.interval import ANY, EXACT, Env, Interval, bounds
from patterndsl.ir.nodes import Node, Pool
from patterndsl.ir.normal import TOKENS, Branch, Term, branches, slot_index
from patterndsl.ir.ranges import INT32, BeyondInt32, ZeroDivisor, check_ranges, simplify_over
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import IDENTITY, BranchPlan, HeadGroup, Part, Plan, RowGroup, Segment, Source
from patterndsl.plan.rows import group_rows
from patterndsl.plan.tables import TABLE_LIMIT, Axis, Table, chunk_table, token_table

TILE = 128
BYTES_PER_ROW = 64  # of tables, for each tile of queries: its number, counts and starts


def default_blocks(n: int, n_q: int) -> tuple[int, int]:
    """Queries and keys in a tile: 128, or the next power of two where there are fewer."""
    return min(TILE, 1 << max(n_q - 1, 0).bit_length()), min(TILE, 1 << max(n - 1, 0).bit_length())


def build_plan(
    patterns: Sequence[tuple[Sequence[int], Node]],
    *,
    n: int,
    n_q: int,
    q_offset: int | None,
    num_heads: int,
    block_sizes: tuple[int, int] | None = None,
) -> Plan:
    """The plan of a pattern for each query head, at n keys and n_q queries.

    ``patterns``: pairs of heads and their pattern, bound at n (`ir.resolve.at_length`), without calls and
    cases; together they name each of ``num_heads`` heads once. ``q_offset``: the position of the first query;
    None where it is known only at run time. ``block_sizes``: queries and keys in a tile, `default_blocks`
    unless given.

    The same arguments give the same object. Raises SpecError: PlanTooLarge before a plan is built that would
    take more than `TABLE_LIMIT` bytes, ValueTooLarge and DivisionByZero where a predicate has no value in
    int32 at some position.
    """
    found = tuple((tuple(heads), node) for heads, node in patterns)
    return _plan(found, n, n_q, q_offset, num_heads, *(block_sizes or default_blocks(n, n_q)))


@functools.lru_cache(maxsize=64)
def _plan(
    patterns: tuple[tuple[tuple[int, ...], Node], ...],
    n: int,
    n_q: int,
    q_offset: int | None,
    num_heads: int,
    block_q: int,
    block_k: int,
) -> Plan:
    _refuse_rows(n_q, block_q)
    by_node: dict[Node, list[int]] = {}
    for heads, node in patterns:
        by_node.setdefault(node, []).extend(heads)
    groups = []
    for node, members in by_node.items():
        parts = branch_plans(node, n, n_q, q_offset, block_q, block_k)
        groups.append(HeadGroup(tuple(sorted(members)), node, parts))
    sources = [s for g in groups for b in g.branches for p in b.parts for s in p.sources]
    inputs = {name for s in sources for name in _inputs(s)}
    return Plan(n, n_q, q_offset, num_heads, block_q, block_k, tuple(groups), tuple(sorted(inputs)))


def forget_plans() -> None:
    """Empty the caches of plans."""
    _plan.cache_clear()
    branch_plans.cache_clear()


def _inputs(source: Source) -> frozenset[str]:
    count = source.term.count
    return source.term.keep.inputs() | (count.inputs() if count is not None else frozenset())


def _refuse_rows(n_q: int, block_q: int) -> None:
    needed = -(-n_q // block_q) * BYTES_PER_ROW
    if needed > TABLE_LIMIT:
        advice = "a smaller n, or larger tiles of queries (block_sizes=…), need less"
        raise SpecError(
            PlanTooLarge(what="the plan's tables", needed=needed, limit=TABLE_LIMIT, advice=advice)
        )


@functools.lru_cache(maxsize=64)
def branch_plans(
    node: Node, n: int, n_q: int, q_offset: int | None, block_q: int, block_k: int
) -> tuple[BranchPlan, ...]:
    """The branches of one pattern, planned. Cached: nodes are hash-consed, so equal patterns are found
    again.
    """
    axis = Axis(q_offset, n_q, block_q)
    return tuple(BranchPlan((_part(b, axis, n, block_k),)) for b in branches(node, n))


def _part(branch: Branch, axis: Axis, n: int, block_k: int) -> Part:
    sources: list[Source] = []
    tables: list[Table] = []
    for pool, term in branch.items():
        slots = n if pool is TOKENS else pool.chunks(n)
        bound = bind(term, pool, axis, n, slots)
        if bound.keep is FALSE:
            continue
        what = "the table of " + ("tokens" if pool is TOKENS else f"summaries of level {pool.level}")
        if pool is TOKENS:
            table = token_table(bound, axis, n, block_k, what)
        else:
            table = chunk_table(bound, axis, slots, pool.stride, block_k, what)
        if len(table.runs.row):
            sources.append(Source(pool, bound, slots))
            tables.append(table)
    rows = group_rows(tables, axis.rows)
    if axis.offset is None:
        rows = tuple(_for_every_tile(g, -(-axis.length // axis.block)) for g in rows)
    return Part(IDENTITY, tuple(sources), rows, axis.block)


def bind(term: Term, pool: Pool, axis: Axis, n: int, slots: int) -> Term:
    """The term, simplified for the positions that there are and checked to be computable in int32."""
    slot = str(slot_index(pool).value)
    end = (axis.offset or 0) + axis.length - 1
    q = ANY if axis.offset is None else Interval(axis.offset, end)
    env: Env = {"q": q, slot: Interval(0, slots - 1)}
    keep = simplify_over(term.keep, env)
    count = None if term.count is None else simplify_over(term.count, env)
    if count is not None and bounds(count, env, xp=EXACT).hi <= 1:
        count = None  # what is kept counts at least once
    if axis.offset is None:  # offsets at run time leave queries within a sequence's length of the keys
        env = {**env, "q": Interval(-(n + axis.length), n + axis.length)}
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
