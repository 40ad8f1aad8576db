"""What a plan costs, counted from its tables, and the plan as a readable text."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from patterndsl.ir.normal import TOKENS
from patterndsl.plan import grouping
from patterndsl.plan.plan import (
    Alternative,
    Decision,
    Grouping,
    HeadGroup,
    Membership,
    Part,
    PartChoice,
    Plan,
    PlanStats,
    RowGroup,
    Segment,
)

MOST_PARTS = 6  # that a plan's one line names


def slots_visited(segment: Segment) -> int:
    """Slots that all rows of the segment visit, padding included."""
    if not segment.step:
        return segment.counts_by_row.rows * segment.width * segment.block
    turns = -(-segment.counts.astype(np.int64) // segment.step)
    return int(turns.sum()) * segment.step * segment.block


def _segments(plan: Plan) -> Iterator[tuple[HeadGroup, Part, Segment]]:
    for group in plan.groups:
        for branch in group.branches:
            for part in branch.parts:
                for rows in part.rows:
                    for segment in rows.segments:
                        yield group, part, segment


def _grouped(plan: Plan) -> Iterator[tuple[HeadGroup, Part, Grouping | Membership]]:
    for group in plan.groups:
        for part in (p for b in group.branches for p in b.parts):
            if part.grouping is not None:
                yield group, part, part.grouping


def plan_stats(plan: Plan) -> PlanStats:
    """Counts over all heads; tables are counted once for heads that share them."""
    by_level: dict[int, int] = {}
    full = partial = table_bytes = 0
    for group, part, segment in _segments(plan):
        heads = len(group.heads)
        level = part.sources[segment.source].pool.level
        by_level[level] = by_level.get(level, 0) + heads * part.block_q * slots_visited(segment)
        columns = np.asarray(segment.partial, bool)
        real = np.minimum(segment.counts.astype(np.int64), segment.width)
        before = np.concatenate([[0], np.cumsum(columns)])
        partial += heads * int(before[real].sum())
        full += heads * int((real - before[real]).sum())
        table_bytes += segment.starts_by_row.nbytes + segment.counts_by_row.nbytes
    for group, part, g in _grouped(plan):
        computed = grouping.pairs(g, plan.n, plan.n_q, part.block_q, part.block_k)
        by_level[0] = by_level.get(0, 0) + len(group.heads) * computed
        partial += len(group.heads) * computed // (part.block_q * part.block_k)
    row_groups = [g for h in plan.groups for b in h.branches for p in b.parts for g in p.rows]
    return PlanStats(
        computed=sum(by_level.values()),
        full_blocks=full,
        partial_blocks=partial,
        row_groups=len(row_groups),
        table_bytes=table_bytes + sum(g.tiles_by_row.nbytes for g in row_groups),
        computed_by_level=dict(sorted(by_level.items())),
    )


def reads(plan: Plan) -> tuple[int, int]:
    """Keys that tiles of queries read, over all heads, and queries that blocks of keys would read."""
    keys = queries = 0
    for group, part, segment in _segments(plan):
        slots = len(group.heads) * slots_visited(segment)
        keys += slots
        queries += slots * part.block_q // (segment.block if segment.block > 1 else plan.block_k)
    for group, part, g in _grouped(plan):
        computed = len(group.heads) * grouping.pairs(g, plan.n, plan.n_q, part.block_q, part.block_k)
        keys += computed // part.block_q
        queries += computed // part.block_k
    return keys, queries


def summary(plan: Plan) -> str:
    """The plan in one line: lengths, heads, and the order and tiles of each part."""
    blocks: dict[Part, int] = {}
    for _, part, segment in _segments(plan):
        blocks[part] = max(blocks.get(part, 0), segment.block)
    blocks |= {part: part.block_k for _, part, _ in _grouped(plan)}
    parts = [f"{part.layout.name} {part.block_q} × {block}" for part, block in blocks.items()]
    heads = f"{plan.num_heads} {_head(plan.num_heads)}"
    return f"<Plan: {plan.n_q} queries × {plan.n} keys, {heads}, {_shortened(parts)}>"


def _shortened(parts: list[str]) -> str:
    more = f" and {len(parts) - MOST_PARTS} more" if len(parts) > MOST_PARTS else ""
    return f"{len(parts)} {'part' if len(parts) == 1 else 'parts'}: {'; '.join(parts[:MOST_PARTS])}{more}"


def explain(plan: Plan) -> str:
    """The plan as a text: its parts, layouts and row groups, with what each computes and why it is so."""
    stats = plan.stats()
    pairs = plan.num_heads * plan.n_q * plan.n
    first = "a position known at run time" if plan.q_offset is None else str(plan.q_offset)
    lines = [
        f"plan: {plan.n_q:,} queries (first at {first}) × {plan.n:,} keys, "
        f"{plan.num_heads} {_head(plan.num_heads)}",
        f"computes {stats.computed:,} pairs, {_share(stats.computed, pairs)} of dense attention's; "
        f"{stats.full_blocks:,} full and {stats.partial_blocks:,} partial blocks; "
        f"tables of {stats.table_bytes:,} bytes",
    ]
    if plan.q_offset is None:
        lines.append("queries have no known position, so no tile is refused for where its queries are")
    if plan.inputs:
        lines.append(
            f"reads at run time: {', '.join(plan.inputs)}; tiles that depend on them are partial, or skipped"
        )
    if plan.facts:
        chosen = ", ".join(dict.fromkeys(str(fact.pattern) for fact in plan.facts))
        lines.append(
            f"chosen from q and k, once a call: {chosen}; tiles that depend on it are partial, or skipped"
        )
    for group in plan.groups:
        lines.append(f"{_head(len(group.heads))} {_ranges(group.heads)}: {group.node}")
        for i, branch in enumerate(group.branches):
            if len(group.branches) > 1:
                lines.append(f"  branch {i}")
            if branch.decision is not None:
                lines += [f"  {line}" for line in _decision(branch.decision)]
            for part in branch.parts:
                lines += [f"  {line}" for line in _part(part)]
    return "\n".join(lines)


def _decision(decision: Decision) -> list[str]:
    """What was chosen and why; where there was a choice, the alternatives with their predicted seconds."""
    lines = [f"chosen: {described(decision.chosen, decision.members)}", f"  {decision.reason}"]
    if len(decision.considered) > 1:
        lines.append(f"predicted for the forward pass, with rates {decision.rates}:")
        for alternative, price in decision.considered:
            mark = " (chosen)" if alternative == decision.chosen else ""
            cost = "cannot be planned" if price == math.inf else f"{1000 * (price or 0):.3g} ms"
            lines.append(f"  {cost}: {described(alternative, decision.members)}{mark}")
    return lines


def described(alternative: Alternative, members: tuple[str, ...]) -> str:
    """Its parts: what they keep, in which layout, in tiles of which size."""
    return "; ".join(_described(p, members) for p in alternative)


def _described(part: PartChoice, members: tuple[str, ...]) -> str:
    kept = ["everything"] if part.members is None else [members[i] for i in part.members]
    if part.members is not None and part.summaries:
        kept.append("summaries")
    return f"{' | '.join(kept)} in {part.layout} order, tiles {part.block_q} × {part.block_k}"


def _part(part: Part) -> list[str]:
    lines = [f"part, queries in {part.layout.name} order, {part.block_q} in a tile"]
    for i, s in enumerate(part.sources):
        what = "tokens" if s.pool is TOKENS else f"level {s.pool.level}, summaries of {s.pool.size} tokens"
        counted = "" if s.term.count is None else f", counted {s.term.count}"
        lines.append(f"  source {i}: {what}, {s.slots:,} slots, kept where {s.term.keep}{counted}")
    if part.grouping is not None:
        return [*lines, f"  {grouping.description(part.grouping)}, {part.block_k} at a time"]
    if not part.rows:
        lines.append("  keeps nothing")
    for rows in part.rows:
        lines += _row_group(rows, part)
    return lines


def _row_group(rows: RowGroup, part: Part) -> list[str]:
    computed = part.block_q * sum(slots_visited(s) for s in rows.segments)
    tiles = rows.tiles
    first, last = int(tiles[0]), int(tiles[-1])
    which = f"tile {first}" if first == last else f"{len(tiles):,} tiles, {first} to {last}"
    return [f"  rows of {which}: {computed:,} pairs a head", *(f"    {_segment(s)}" for s in rows.segments)]


def _segment(s: Segment) -> str:
    counts = s.counts
    least, most = int(counts.min()), int(counts.max())
    number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    unit = "slots" if s.block == 1 else f"blocks of {s.block}"
    how = "in a slice" if s.contiguous else "gathered"
    if s.step:
        how = f"{how}, {s.step} at a time in a loop: more than are taken at once"
    kinds = "".join("P" if p else "F" for p in s.partial)
    if len(set(kinds)) == 1:
        kind = "partial: the predicate is applied" if s.partial[0] else "full: no predicate"
    else:
        kind = f"full and partial: {kinds}"
    return f"source {s.source}: {number} {unit} {how}; {kind}"


def _head(number: int) -> str:
    return "head" if number == 1 else "heads"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3%}" if whole else "0%"


def _ranges(heads: tuple[int, ...]) -> str:
    """``0–3, 6`` for 0, 1, 2, 3, 6."""
    runs: list[list[int]] = []
    for h in heads:
        if runs and h == runs[-1][1] + 1:
            runs[-1][1] = h
        else:
            runs.append([h, h])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
