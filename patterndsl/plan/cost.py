"""The cost model: the predicted seconds of a part, as a sum of what it does times what that costs.

What a part does (`part_work`) is counted from its tables; what a unit costs (`Rates`) was measured once for
each kind of device and each backend, as `pd.calibrate` does again on another machine. The forward pass is
modelled; the backward pass visits the same tiles.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np

from patterndsl.ir.expr import Expr, bound
from patterndsl.ir.normal import Term
from patterndsl.ir.table import Table
from patterndsl.plan import grouping
from patterndsl.plan.plan import BranchPlan, Grouping, HeadGroup, Membership, Part, Plan, Segment
from patterndsl.plan.stats import slots_visited

MOST_CHANGES = 3  # between full and partial columns, beyond which executors apply the predicate to all


@dataclasses.dataclass(frozen=True)
class Workload:
    """The operands that a plan is chosen for. ``heads`` query heads share ``kv_heads`` key heads; sizes in
    elements, ``itemsize`` in bytes. ``platform`` and ``backend`` say whose rates apply."""

    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    head_dim: int = 64
    v_head_dim: int = 64
    itemsize: int = 4
    platform: str = "cpu"
    backend: str = "xla"

    def of_heads(self, heads: int) -> Workload:
        """The same for a group of that many of its query heads."""
        shared = max(self.heads // self.kv_heads, 1)
        return dataclasses.replace(self, heads=heads, kv_heads=-(-heads // shared))


TERMS: Mapping[str, str] = {
    "product": "a multiplication and addition in the products with keys and values",
    "masked product": "the same for a masked pair: an executor may skip pairs that are found not to be kept",
    "exponential": "a pair's softmax, in each head",
    "masked exponential": "the same, and its masking, for a masked pair",
    "predicate": "an operation of the predicate for a masked pair, in each head (where it is fused)",
    "read": "a byte of keys and values read from a run of slots",
    "gather": "a byte of keys and values gathered from blocks of slots",
    "slot": "a byte of keys and values gathered slot by slot",
    "query": "a byte of queries read and of output written, tile by tile",
    "reorder": "a byte of queries, keys, values and output moved into a layout and back",
    "merge": "a byte of output merged with what another part found",
    "visit": "a slice that a tile of queries reads, or one turn of a loop",
    "row": "a tile of queries",
    "part": "a part, or a group of rows in it",
}
"""What is counted, and the unit that a rate is for."""

Work: TypeAlias = Mapping[str, float]
"""For each of `TERMS`, how much."""


@dataclasses.dataclass(frozen=True)
class Rates:
    """Seconds a unit, for each of `TERMS` in order. ``origin`` says where they come from."""

    seconds: tuple[float, ...]
    origin: str


def seconds(work: Work, rates: Rates) -> float:
    """What the work takes."""
    return sum(rate * work[name] for name, rate in zip(TERMS, rates.seconds, strict=True))


def total(works: Iterable[Work]) -> Work:
    """The sum."""
    found = dict.fromkeys(TERMS, 0.0)
    for w in works:
        for name, amount in w.items():
            found[name] += amount
    return found


def pairs_computed(work: Work) -> float:
    """Pairs of a query and a slot, in each head, masked ones included."""
    return work["exponential"] + work["masked exponential"]


def plan_work(plan: Plan, workload: Workload) -> Work:
    """What all parts of a plan do."""
    return total(group_work(g, plan.n, plan.n_q, workload) for g in plan.groups)


def group_work(group: HeadGroup, n: int, n_q: int, workload: Workload) -> Work:
    """What the parts of a group of heads do."""
    mine = workload.of_heads(len(group.heads))
    return total(branch_work(b, n, n_q, mine) for b in group.branches)


def branch_work(branch: BranchPlan, n: int, n_q: int, workload: Workload) -> Work:
    """What the parts of one softmax do, the merges between them included."""
    return total(part_work(p, n, n_q, workload, later=i > 0) for i, p in enumerate(branch.parts))


def part_work(part: Part, n: int, n_q: int, workload: Workload, *, later: bool = False) -> Work:
    """What one part does. ``later``: it is merged with what parts before it found."""
    w = workload
    found = dict.fromkeys(TERMS, 0.0)
    width = w.head_dim + w.v_head_dim
    rows = sum(len(g.tiles) for g in part.rows)
    found["part"] = 1.0 + len(part.rows)
    found["row"] = float(rows)
    found["query"] = float(w.batch * w.heads * rows * part.block_q) * (
        w.head_dim * w.itemsize + w.v_head_dim * 4
    )
    if later:
        found["merge"] = float(w.batch * w.heads * rows * part.block_q) * w.v_head_dim * 8
    if part.layout.queries is not None:
        found["reorder"] += w.batch * w.heads * n_q * (w.head_dim * w.itemsize + w.v_head_dim * 4)
    if part.layout.tokens is not None:
        found["reorder"] += w.batch * w.kv_heads * n * width * w.itemsize
    operations = [operations_of(s.term) for s in part.sources]
    if part.grouping is not None:
        return {**found, **_grouped_work(part, part.grouping, n, n_q, w, operations[0])}
    for group in part.rows:
        for segment in group.segments:
            pairs = float(part.block_q) * slots_visited(segment)
            masked = pairs * _partial(segment)
            bytes_read = w.batch * w.kv_heads * (pairs / part.block_q) * width * w.itemsize
            found["product"] += w.batch * w.heads * (pairs - masked) * width
            found["masked product"] += w.batch * w.heads * masked * width
            found["exponential"] += w.batch * w.heads * (pairs - masked)
            found["masked exponential"] += w.batch * w.heads * masked
            found["predicate"] += w.batch * w.heads * masked * operations[segment.source]
            found["read" if segment.contiguous else "gather" if segment.block > 1 else "slot"] += bytes_read
            found["visit"] += _visits(segment)
    return found


def _grouped_work(
    part: Part, g: Grouping | Membership, n: int, n_q: int, w: Workload, operations: float
) -> dict[str, float]:
    """Queries and what is known of their softmax are gathered and written back, and choices are sorted, or
    members listed. Each head goes through its own tiles, which takes about three times the calls that a tile
    of all heads does."""
    each = w.batch * w.heads
    tiles = grouping.tiles(g, n_q, part.block_q)
    pairs = float(each * grouping.pairs(g, n, n_q, part.block_q, part.block_k))
    width = w.head_dim + w.v_head_dim
    moved = each * tiles * part.block_q * (w.head_dim * w.itemsize + 2 * w.v_head_dim * 4)
    if isinstance(g, Membership):
        keys = g.groups * (grouping.most_keys(g, n) or n)
        listed = (n_q + n) * g.groups * 8.0 + keys * width * w.itemsize
        operations += 2.0 * g.groups / grouping.WORD  # whether an earlier group has the pair
    else:
        listed = n_q * g.choices * 16.0 + (0 if g.size else n * width * w.itemsize)
    return {
        "row": 3.0 * each * tiles,
        "query": 0.0,
        "masked product": pairs * width,  # the ends of groups are masked, whatever is kept
        "masked exponential": pairs,
        "predicate": pairs * operations,
        "read": pairs / part.block_q * width * w.itemsize,
        "slot": float(moved),
        "reorder": each * listed,
        "visit": 3.0 * pairs / part.block_q / part.block_k,
    }


HEAVY = {"floordiv": 6, "mod": 6, "input": 4}
LISTED = 30  # for each entry of a row that is looked up
"""Operations that take as long as several of the others."""


def operations_of(term: Term) -> float:
    """Operations of a predicate and its count for each pair: those that depend on both of its slots."""
    return _operations(term.keep) + (_operations(term.count) if term.count is not None else 0.0)


@functools.lru_cache(maxsize=1024)
def _operations(e: Expr) -> float:
    free, found = e.free(), 0.0
    for x in e.walk():
        if len(free[x]) < 2:
            continue  # once for each query, or each key
        if x.op in ("forall", "exists"):
            found += (bound(x)[1] - 1) * _operations(x.args[2])
        elif isinstance(x.value, Table):
            found += LISTED * x.value.entries.shape[1]
        else:
            found += HEAVY.get(x.op, 1)
    return found


def _changes(segment: Segment) -> int:
    columns = np.asarray(segment.partial, bool)
    return int(np.count_nonzero(columns[1:] != columns[:-1]))


def _partial(segment: Segment) -> float:
    """The share of columns to which executors apply the predicate."""
    if segment.step or _changes(segment) > MOST_CHANGES:
        return float(any(segment.partial))
    return sum(segment.partial) / max(len(segment.partial), 1)


def _visits(segment: Segment) -> float:
    if segment.step:
        return float(np.sum(-(-segment.counts.astype(np.int64) // segment.step)))
    changes = _changes(segment)
    return float(len(segment.counts) * (1 + (changes if changes <= MOST_CHANGES else 0)))
