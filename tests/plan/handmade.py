"""Plans made by brute force, for small n: every tile is classified by evaluating every pair.

A test tool. `Style` forces the structures that an executor must take: runs, gathered blocks, loops, rows
padded to a common width, parts to be merged, summaries read slot by slot, queries and tokens in any order.
"""

import dataclasses

import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import TRUE, Q, all_of
from patterndsl.ir.nodes import Where
from patterndsl.ir.normal import TOKENS, Term, slot_index
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import (
    IDENTITY,
    BranchPlan,
    HeadGroup,
    Layout,
    Part,
    Plan,
    RowGroup,
    Segment,
    Source,
)


@dataclasses.dataclass(frozen=True)
class Style:
    """``contiguous``: each row reads one run, from its first kept block to its last. ``step``: loop over
    blocks, so many at a time. ``padded``: all rows in one group, shorter ones filled up. ``parts``: cut the
    slots of each source into so many (``cut="queries"``: the queries), merged by log-sum-exp.
    ``all_partial``: no block is called full. ``slot_block``, ``token_block``: block of summaries and of
    tokens (None: the plan's). ``shuffled``: of ``queries`` and ``tokens``, those that are in a random order,
    with empty places among them. ``block_qs``: queries in a tile, part by part (none: the plan's)."""

    contiguous: bool = False
    step: int = 0
    padded: bool = False
    parts: int = 1
    all_partial: bool = False
    slot_block: int = 1
    token_block: int | None = None
    shuffled: tuple[str, ...] = ()
    block_qs: tuple[int, ...] = ()
    cut: str = "slots"


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
    rng = np.random.default_rng(n)
    for i in range(style.parts):
        part_q = style.block_qs[i % len(style.block_qs)] if style.block_qs else block_q
        orders = {
            "queries": _order(rng, n_q, part_q) if "queries" in style.shuffled else None,
            "tokens": _order(rng, n, block_k) if "tokens" in style.shuffled else None,
        }
        layout = Layout("shuffled", **orders) if style.shuffled else IDENTITY
        sources = []
        for pool, term in terms:
            index, slots = slot_index(pool), pool.chunks(n)
            if pool is TOKENS and layout.tokens is not None:
                slots = len(layout.tokens)
            cut, size = (Q - q_offset, n_q) if style.cut == "queries" else (index, pool.chunks(n))
            low, high = i * size // style.parts, (i + 1) * size // style.parts
            inside = term.keep if style.parts == 1 else all_of(term.keep, cut >= low, cut < high)
            sources.append(Source(pool, Term(inside, term.count), slots))
        rows = _rows(sources, layout, n_q, q_offset, part_q, block_k, style)
        parts.append(Part(layout, tuple(sources), rows, part_q))
    return BranchPlan(tuple(parts))


def _order(rng, size, block):
    """A random order with a third more places, the others empty."""
    places = -(-(size + size // 3) // block) * block
    order = np.full(places, -1, np.int32)
    order[rng.permutation(places)[:size]] = np.arange(size)
    return order


def _rows(sources, layout, n_q, q_offset, block_q, block_k, style):
    """Row groups: tiles with the same kinds and numbers of blocks together, or all (``padded``)."""
    order = np.arange(n_q) if layout.queries is None else layout.queries
    by_schedule = {}
    for tile in range(-(-len(order) // block_q)):
        queries = order[tile * block_q : (tile + 1) * block_q]
        q = None if q_offset is None else q_offset + queries[queries >= 0]
        found = [_classify(s, layout, q, _block(s, block_k, style), style) for s in sources]
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
    return (style.token_block or block_k) if source.pool is TOKENS else style.slot_block


def _classify(source, layout, q, block, style):
    """The first slots of the blocks that a tile of the queries at positions ``q`` visits (None: known at run
    time), and which of these are full."""
    slots, term = source.slots, source.term
    starts = np.arange(0, slots, block)
    read = term.keep.inputs() | (term.count.inputs() if term.count is not None else frozenset())
    if q is None or read:  # known at run time only: visit everything
        return starts.astype(np.int32), [False] * len(starts)
    reordered = source.pool is TOKENS and layout.tokens is not None
    index = layout.tokens if reordered else np.arange(slots)
    env = {"q": q[:, None], str(slot_index(source.pool).value): np.maximum(index, 0)[None, :]}
    kept = np.broadcast_to(evaluate(term.keep, env), (len(q), slots)) & (index >= 0)
    once = kept.astype(int)
    if term.count is not None:
        once = np.where(kept, np.broadcast_to(evaluate(term.count, env), kept.shape), 0)
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
