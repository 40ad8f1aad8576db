"""The executable meaning of a plan: every segment visited on the host, slot by slot, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.nodes import Pool, fact
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import Grouping, HeadGroup, Part, Plan, RowGroup, Segment, Source


def replay(
    plan: Plan, group: HeadGroup, branch: int, offset: int, inputs: Mapping[str, np.ndarray] | None = None
) -> dict[Pool, np.ndarray]:
    """For each source the counts [n_q, slots] that the plan gives to one branch of a group of heads, tokens
    in their own order. Fails where the plan breaks its contract.
    """
    found: dict[Pool, np.ndarray] = {}
    for part in group.branches[branch].parts:
        order = _queries(part, plan.n_q)
        slots = [_slots(part, s, plan.n) for s in part.sources]
        visited = {s.pool: np.zeros((plan.n_q, s.pool.chunks(plan.n)), np.int32) for s in part.sources}
        q = np.arange(plan.n_q) + offset
        held = [_held(s, q, plan.n, inputs or {}) for s in part.sources]
        if part.grouping is not None:
            assert not part.rows and [s.pool for s in part.sources] == [TOKENS]
            counts = found.setdefault(TOKENS, np.zeros((plan.n_q, plan.n), np.int32))
            counts += held[0] * _meet(part.grouping, q, plan.n, inputs or {})
        seen: set[int] = set()
        for rows in part.rows:
            assert seen.isdisjoint(rows.tiles.tolist()), "a tile is in two groups"
            seen.update(rows.tiles.tolist())
            _row_group(plan, part, rows, order, slots, held, visited, found)
        for pool, times in visited.items():
            assert times.max(initial=0) <= 1, f"a pair of {pool} is visited twice"
    return found


def _meet(g: Grouping, q: np.ndarray, n: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether each query named the group of each key, [n_q, n]."""
    groups = np.broadcast_to(evaluate(g.key, {"k": np.arange(n)}, inputs), n)
    assert groups.min() >= 0
    named = fact(g.fact.pattern, g.fact.name, g.row, g.index)
    chosen = np.broadcast_to(
        evaluate(named, {"q": q[:, None], "i": np.arange(g.choices)}, inputs), (len(q), g.choices)
    )
    chosen = np.where(chosen < g.groups, chosen, -1)
    return (chosen[:, :, None] == groups).any(axis=1)


def _queries(part: Part, n_q: int) -> np.ndarray:
    """The query at each place."""
    order = part.layout.queries
    if order is None:
        places = -(-n_q // part.block_q) * part.block_q
        return np.where(np.arange(places) < n_q, np.arange(places), -1)
    assert order.dtype == np.int32 and len(order) % part.block_q == 0
    _check_permutation(order, part.layout.query_places, n_q)
    return order


def _slots(part: Part, source: Source, n: int) -> np.ndarray:
    """The slot at each place: the token, or the chunk."""
    order = part.layout.tokens
    if source.pool is not TOKENS or order is None:
        assert source.slots == source.pool.chunks(n)
        return np.arange(source.slots)
    assert order.dtype == np.int32 and len(order) == source.slots
    _check_permutation(order, part.layout.token_places, n)
    return order


def _check_permutation(order: np.ndarray, places: np.ndarray | None, size: int) -> None:
    assert np.array_equal(np.sort(order[order >= 0]), np.arange(size)) and order.min() >= -1
    assert places is not None and np.array_equal(order[places], np.arange(size))


def _row_group(
    plan: Plan,
    part: Part,
    rows: RowGroup,
    order: np.ndarray,
    slots: list[np.ndarray],
    held: list[np.ndarray],
    visited: dict[Pool, np.ndarray],
    found: dict[Pool, np.ndarray],
) -> None:
    assert len(np.unique(rows.tiles)) == len(rows.tiles) > 0
    for segment in rows.segments:
        source = part.sources[segment.source]
        counts = found.setdefault(source.pool, np.zeros((plan.n_q, source.pool.chunks(plan.n)), np.int32))
        _check_segment(segment, source, len(rows.tiles))
        for r, tile in enumerate(rows.tiles.tolist()):
            queries = order[tile * part.block_q : (tile + 1) * part.block_q]
            queries = queries[queries >= 0]
            assert len(queries) > 0, "a tile without queries"
            for j in range(int(segment.counts[r])):
                start = _start(segment, r, j)
                assert 0 <= start < source.slots
                block = slots[segment.source][start : start + segment.block]
                if not segment.partial[j]:
                    assert len(block) == segment.block and block.min() >= 0, "a full block is not whole"
                here = np.ix_(queries, block[block >= 0])
                visited[source.pool][here] += 1
                counts[here] += held[segment.source][here] if segment.partial[j] else 1


def _start(segment: Segment, row: int, j: int) -> int:
    if segment.contiguous:
        return int(segment.starts[row, 0]) + j * segment.block
    return int(segment.starts[row, j])


def _held(source: Source, q: np.ndarray, n: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the source's predicate and count say of every query and slot, where a plan asks them."""
    shape = (len(q), source.pool.chunks(n))
    env = {"q": q[:, None], "k" if source.pool is TOKENS else "c": np.arange(shape[1])[None, :]}
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
