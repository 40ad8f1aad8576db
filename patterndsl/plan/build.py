"""From a pattern, bound at a length, to its plan."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from patterndsl.diagnostics import PlanTooLarge, SpecError
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import branches
from patterndsl.plan.orders import Identity
from patterndsl.plan.parts import part_in
from patterndsl.plan.plan import BranchPlan, HeadGroup, Plan, Source
from patterndsl.plan.tables import TABLE_LIMIT, Axis

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
    return tuple(BranchPlan((part_in(b, Identity(), axis, n, block_k),)) for b in branches(node, n))
