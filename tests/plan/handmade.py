"""Plans made by brute force, for small n: every tile is classified by evaluating every pair.

A test tool. `Style` forces the structures that an executor must take: runs, gathered blocks, loops, rows
padded to a common width, parts to be merged, summaries read slot by slot.
"""

import dataclasses

import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import TRUE, all_of
from patterndsl.ir.nodes import Where
from patterndsl.ir.normal import TOKENS, Term, slot_index
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import IDENTITY, BranchPlan, HeadGroup, Part, Plan, RowGroup, Segment, Source


@dataclasses.dataclass(frozen=True)
class Style:
    """``contiguous``: each row reads one run, from its first kept block to its last. ``step``: loop over
    blocks, so many at a time. ``padded``: all rows in one group, shorter ones filled up. ``parts``: cut the
    slots of each source into so many, merged by log-sum-exp. ``all_partial``: no block is called full.
    ``slot_block``: block of summaries."""

    contiguous: bool = False
    step: int = 0
    padded: bool = False
    parts: int = 1
    all_partial: bool = False
    slot_block: int = 1


def make_plan(heads, n, n_q=None, *, q_offset="last", block_q=8, block_k=4, style=Style(), inputs=()):
    """``heads``: for each tuple of query heads the list of its branches, each a list of (pool, term)."""
    n_q = n if n_q is None else n_q
    q_offset = n - n_q if q_offset == "last" else q_offset
    sizes = (n, n_q, q_offset, block_q, block_k)
    groups = tuple(
        HeadGroup(h, Where(TRUE), tuple(_branch(b, *sizes, style) for b in branches))
        for h, branches in heads.items()
    )
    num_heads = sum(len(h) for h in heads)
    return Plan(n, n_q, q_offset, num_heads, block_q, block_k, groups, tuple(inputs))


def _branch(terms, n, n_q, q_offset, block_q, block_k, style):
    parts = []
    for i in range(style.parts):
        sources = []
        for pool, term in terms:
            index, slots = slot_index(pool), pool.chunks(n)
            low, high = i * slots // style.parts, (i + 1) * slots // style.parts
            inside = term.keep if style.parts == 1 else all_of(term.keep, index >= low, index < high)
            sources.append(Source(pool, Term(inside, term.count), slots))
        rows = _rows(sources, n_q, q_offset, block_q, block_k, style)
        parts.append(Part(IDENTITY, tuple(sources), rows, block_q))
    return BranchPlan(tuple(parts))


def _rows(sources, n_q, q_offset, block_q, block_k, style):
    """Row groups: tiles with the same kinds and numbers of blocks together, or all (``padded``)."""
    by_schedule = {}
    for tile in range(-(-n_q // block_q)):
        found = [
            _classify(s, tile, n_q, q_offset, block_q, _block(s, block_k, style), style) for s in sources
        ]
        if any(len(starts) for starts, _ in found):
            loop = bool(style.step)
            key = () if style.padded or loop else tuple(tuple(full) for _, full in found)
            by_schedule.setdefault(key, []).append((tile, found))
    groups = []
    for rows in by_schedule.values():
        segments = []
        for i, source in enumerate(sources):
            width = max(len(found[i][0]) for _, found in rows)
            if width:
                columns = [found[i] for _, found in rows]
                segments.append(_segment(i, _block(source, block_k, style), width, columns, style))
        groups.append(RowGroup(Periodic.of(np.array([tile for tile, _ in rows], np.int32)), tuple(segments)))
    return tuple(groups)


def _block(source, block_k, style):
    return block_k if source.pool is TOKENS else style.slot_block


def _classify(source, tile, n_q, q_offset, block_q, block, style):
    """The first slots of the blocks that a tile visits, and which of these are full."""
    slots, term = source.slots, source.term
    starts = np.arange(0, slots, block)
    read = term.keep.inputs() | (term.count.inputs() if term.count is not None else frozenset())
    if q_offset is None or read:  # known at run time only: visit everything
        return starts.astype(np.int32), [False] * len(starts)
    q = q_offset + np.arange(tile * block_q, min((tile + 1) * block_q, n_q))
    env = {"q": q[:, None], str(slot_index(source.pool).value): np.arange(slots)[None, :]}
    kept = np.broadcast_to(evaluate(term.keep, env), (len(q), slots)).astype(int)
    once = (
        kept
        if term.count is None
        else np.where(kept, np.broadcast_to(evaluate(term.count, env), kept.shape), 0)
    )
    some = np.array([bool(kept[:, s : s + block].any()) for s in starts], bool)
    full = [bool((once[:, s : s + block] == 1).all()) and s + block <= slots for s in starts]
    visited = np.flatnonzero(some)
    if style.contiguous and len(visited):
        visited = np.arange(visited[0], visited[-1] + 1)
    return starts[visited].astype(np.int32), [full[j] and not style.all_partial for j in visited]


def _segment(source, block, width, columns, style):
    starts = np.zeros((len(columns), width), np.int32)
    counts = np.array([len(s) for s, _ in columns], np.int32)
    for row, (real, _) in enumerate(columns):
        starts[row, : len(real)] = real
        starts[row, len(real) :] = real[-1] if len(real) else 0
    partial = [any(j < len(full) and not full[j] for _, full in columns) for j in range(width)]
    if style.step:
        partial = [any(partial)] * width
    runs = all(bool((np.diff(s) == block).all()) for s, _ in columns)
    if style.contiguous and runs:
        starts = starts[:, :1]
    return Segment(
        source,
        block,
        Periodic.of(starts),
        Periodic.of(counts),
        style.contiguous and runs,
        tuple(partial),
        min(style.step, width),
    )
