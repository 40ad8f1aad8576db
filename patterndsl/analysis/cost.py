"""What a plan really costs: pairs computed, FLOPs, bytes moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from patterndsl.analysis.count import LARGEST
from patterndsl.analysis.quadtree import Budget, Tiles, tiles
from patterndsl.analysis.unknown import without_inputs
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import TOKENS, branches
from patterndsl.plan.cost import Workload
from patterndsl.plan.stats import reads

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.plan.plan import Plan

MOST_PARTIAL = 2**21
"""Partial tiles beyond which no plan is made just to be counted: it is predicted from its tiles."""
TILE = 128

Heads = Sequence[tuple[tuple[int, ...], Node]]


class Passes(NamedTuple):
    """Of the forward and of the backward pass."""

    forward: int
    backward: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """``computed``: pairs of query and slot that the plan computes over all heads. ``flops``: two for each
    multiplication and addition in the products with keys and values: 2 products of head_dim in the forward
    pass, 5 in the backward pass, which computes the logits again. ``bytes``: each tile of queries is read and
    written once and reads the keys and values of the blocks that it visits; the backward pass does so for dq,
    and the other way round for dk and dv. Tables are read once a pass. ``predicted``: no plan was made;
    tokens are counted from the tiles of 128 × 128 that hold a kept pair.
    """

    computed: int
    flops: Passes
    bytes: Passes
    predicted: bool


def plan_cost(
    attention: Attention, heads: Heads, n: int, head_dim: int, itemsize: int
) -> tuple[Plan | None, Cost | None]:
    """The plan at n keys and queries and its cost; no plan, and where it can be predicted its cost, where the
    plan would be too large to be made for this alone. Raises `SpecError` where there can be none."""
    if n > LARGEST:
        return None, None
    num_heads = sum(len(h) for h, _ in heads)
    found = [(len(h), node_tiles(node, n)) for h, node in heads]
    if sum(t.partial for _, t in found) <= MOST_PARTIAL:
        plan = attention.plan(
            n, num_heads=num_heads, workload=_workload(attention, num_heads, head_dim, itemsize)
        )
        stats = plan.stats()
        tables = stats.table_bytes
        return plan, cost_of(stats.computed, tables, n, num_heads, reads(plan), head_dim, itemsize)
    if not all(t.exact for _, t in found):
        return None, None
    computed = sum(times * (t.full + t.partial) for times, t in found) * TILE**2
    read = (computed // TILE, computed // TILE)
    cost = cost_of(computed, 0, n, num_heads, read, head_dim, itemsize)
    return None, dataclasses.replace(cost, predicted=True)


def _workload(attention: Attention, heads: int, head_dim: int, itemsize: int) -> Workload:
    """One sequence on JAX's device, or on the CPU."""
    from patterndsl.targets import platform_in_use, priced_as

    platform = platform_in_use()
    dtype = {2: "bfloat16", 4: "float32"}.get(itemsize, "float64")
    backend = priced_as(attention.backend, platform, dtype)
    return Workload(1, heads, heads, head_dim, head_dim, itemsize, platform, backend)


def node_tiles(node: Node, n: int) -> Tiles:
    """Tiles of 128 queries × 128 tokens in which a pattern bound at n may keep a pair."""
    full = partial = 0
    exact, budget = True, Budget()
    for branch in branches(node, n):
        if TOKENS not in branch:
            continue
        keep = branch[TOKENS].keep
        found = tiles(without_inputs(keep, True), "k", 0, n, n, TILE, budget)
        data = keep.reads_data()  # then no tile is known to be full
        full, partial = full + found.full * (not data), partial + found.partial + found.full * data
        exact = exact and found.exact
    return Tiles(full, partial, exact)


def cost_of(
    computed: int,
    table_bytes: int,
    n: int,
    num_heads: int,
    read: tuple[int, int],
    head_dim: int,
    itemsize: int,
) -> Cost:
    """The cost of computing so many pairs, for which tiles ``read`` so many (keys, queries)."""
    row = head_dim * itemsize  # of q, k, v, o and their gradients
    log_sum_exp = 4 * n * num_heads
    own = n * num_heads * row
    by_queries, by_keys = (2 * r * row for r in read)
    return Cost(
        computed,
        Passes(4 * head_dim * computed, 10 * head_dim * computed),
        Passes(
            2 * own + by_queries + log_sum_exp + table_bytes,
            4 * own + by_queries + 2 * own + by_keys + 2 * log_sum_exp + 2 * table_bytes,
        ),
        False,
    )
