"""The executable meaning of a plan: every segment visited on the host, slot by slot, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import HeadGroup, Part, Plan, RowGroup, Segment, Source


def replay(
    plan: Plan, group: HeadGroup, branch: int, offset: int, inputs: Mapping[str, np.ndarray] | None = None
) -> dict[Pool, np.ndarray]:
    """For each source the counts [n_q, slots] that the plan gives to one branch of a group of heads. Fails
    where the plan breaks its contract.
    """
    found: dict[Pool, np.ndarray] = {}
    for part in group.branches[branch].parts:
        visited = {s.pool: np.zeros((plan.n_q, s.slots), np.int32) for s in part.sources}
        q = np.arange(plan.n_q) + offset
        held = [_held(s, q, inputs or {}) for s in part.sources]
        seen: set[int] = set()
        for rows in part.rows:
            assert seen.isdisjoint(rows.tiles.tolist()), "a tile is in two groups"
            seen.update(rows.tiles.tolist())
            _row_group(plan, part, rows, held, visited, found)
        for pool, times in visited.items():
            assert times.max(initial=0) <= 1, f"a pair of {pool} is visited twice"
    return found


def _row_group(
    plan: Plan,
    part: Part,
    rows: RowGroup,
    held: list[np.ndarray],
    visited: dict[Pool, np.ndarray],
    found: dict[Pool, np.ndarray],
) -> None:
    assert len(np.unique(rows.tiles)) == len(rows.tiles) > 0
    for segment in rows.segments:
        source = part.sources[segment.source]
        counts = found.setdefault(source.pool, np.zeros((plan.n_q, source.slots), np.int32))
        _check_segment(segment, source, len(rows.tiles))
        for r, tile in enumerate(rows.tiles.tolist()):
            queries = np.arange(tile * plan.block_q, min((tile + 1) * plan.block_q, plan.n_q))
            assert len(queries) > 0, "a tile without queries"
            for j in range(int(segment.counts[r])):
                start = _start(segment, r, j)
                assert 0 <= start < source.slots
                slots = np.arange(start, min(start + segment.block, source.slots))
                here = np.ix_(queries, slots)
                if not segment.partial[j]:
                    assert len(slots) == segment.block, "a full block is not whole"
                visited[source.pool][here] += 1
                counts[here] += held[segment.source][here] if segment.partial[j] else 1


def _start(segment: Segment, row: int, j: int) -> int:
    if segment.contiguous:
        return int(segment.starts[row, 0]) + j * segment.block
    return int(segment.starts[row, j])


def _held(source: Source, q: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the source's predicate and count say of every query and slot, where a plan asks them."""
    shape = (len(q), source.slots)
    env = {"q": q[:, None], "k" if source.pool is TOKENS else "c": np.arange(source.slots)[None, :]}
    keep = np.broadcast_to(evaluate(source.term.keep, env, inputs), shape)
    if source.term.count is None:
        return keep.astype(np.int32)
    return np.where(keep, evaluate(source.term.count, env, inputs), 0)


def _check_segment(s: Segment, source: Source, rows: int) -> None:
    width = len(s.partial)
    assert s.width == width > 0
    assert s.starts.shape == (rows, 1 if s.contiguous else width) and s.counts.shape == (rows,)
    assert s.starts.dtype == s.counts.dtype == np.int32
    assert np.all(s.starts % s.block == 0) and np.all((s.starts >= 0) & (s.starts < source.slots))
    assert s.counts.min() >= 0 and s.counts.max() == width
    if s.step:
        assert len(set(s.partial)) == 1
    if not s.contiguous:
        for row, count in zip(s.starts, s.counts.tolist(), strict=True):
            assert np.all(np.diff(row[:count]) > 0), "starts do not rise"
