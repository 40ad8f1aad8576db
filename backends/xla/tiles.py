"""What the rows of a group read: pieces of its segments as tables, and how a row reads and adds to them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from patterndsl.backends.xla.order import Order
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.periodic import Periodic
from patterndsl.plan.plan import Part, Segment, Source

Int32 = npt.NDArray[np.int32]

MAX_RUNS = 4  # a segment with more changes between full and partial columns is treated as partial throughout


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Columns of a segment that a row reads at once: consecutive, and all full or all partial.

    ``starts`` int32 [rows, width] ([rows, 1] where ``contiguous``); ``counts`` int32 [rows] the real blocks
    among them, None where all are; both are kept as rules. ``step``: as in `Segment`; ``width`` is then a
    multiple of it, and ``whole_steps`` says that all counts are. ``end``: one past the last slot that any row
    reads; ``beyond``: it is past the last that exists, or some place read may be empty.
    """

    source: int
    block: int
    width: int
    contiguous: bool
    partial: bool
    step: int
    starts: Periodic
    counts: Periodic | None
    end: int
    beyond: bool
    whole_steps: bool


def pieces(segment: Segment, slots: int, gaps: bool) -> list[Piece]:
    """The pieces of a segment whose source has ``slots`` slots, with ``gaps`` if some of them are empty
    places; columns that no row uses are left out."""
    width = int(segment.counts.max(initial=0))
    if width == 0:
        return []
    partial = segment.partial[:width]
    changes = [j for j in range(1, width) if partial[j] != partial[j - 1]]
    few = 2 * sum(partial) >= width  # so few full columns that to test them costs less than another piece
    if segment.step or few or len(changes) + 1 > MAX_RUNS:
        changes, partial = [], (any(partial),) * width
    bounds = [0, *changes, width]
    return [_piece(segment, slots, gaps, a, b, partial[a]) for a, b in itertools.pairwise(bounds)]


def _piece(segment: Segment, slots: int, gaps: bool, a: int, b: int, partial: bool) -> Piece:
    block, step = segment.block, min(segment.step, b - a)
    contiguous = segment.contiguous or b - a == 1
    width = -(-(b - a) // step) * step if step else b - a
    if contiguous:
        starts = segment.starts[:, :1] + np.int32(a * block) if segment.contiguous else segment.starts[:, a:b]
        end = int(starts.max()) + width * block
    else:
        starts = np.pad(segment.starts[:, a:b], ((0, 0), (0, width - (b - a))), mode="edge")
        end = int(starts.max()) + block
    real = np.clip(segment.counts - a, 0, b - a)
    counts = None if not step and bool((real == b - a).all()) else Periodic.of(real)
    whole_steps = bool(step) and bool((real % step == 0).all())
    return Piece(
        segment.source, block, width, contiguous, partial, step, Periodic.of(starts), counts, end,
        gaps or end > slots, whole_steps,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A `RowGroup` made ready: its tiles and pieces, those taken at once before those looped over."""

    tiles: Periodic
    at_once: tuple[Piece, ...]
    looped: tuple[Piece, ...]

    def tables(self) -> Tables:
        """What changes from row to row, rows first."""
        every = (*self.at_once, *self.looped)
        return Tables(
            _on_device(self.tiles),
            tuple(_on_device(p.starts) for p in every),
            tuple(None if p.counts is None else _on_device(p.counts) for p in every),
        )


def _on_device(x: Periodic) -> jax.Array:
    if x.period == x.rows:
        return jnp.asarray(x.values)
    made: jax.Array = x.at(lax.iota(jnp.int32, x.rows), jnp)
    return made


class Tables(NamedTuple):
    """The tables of a group or, inside the loop, of one of its rows; starts and counts follow the pieces."""

    tile: jax.Array
    starts: tuple[jax.Array, ...]
    counts: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """A `Part` made ready: its sources and row groups, whose tiles count those that it visits alone.

    ``queries`` the queries of these tiles, ``tokens`` the tokens, each in the part's layout; ``pools`` the
    distinct sources of its keys, ``extents`` how many slots of each must exist as array elements.
    """

    block_q: int
    sources: tuple[Source, ...]
    rows: tuple[Rows, ...]
    queries: Order
    tokens: Order
    pools: tuple[Pool, ...]
    extents: tuple[int, ...]

    def pool(self, source: Source) -> int:
        """The position of a source's pool in ``pools``."""
        return self.pools.index(source.pool)

    def reordered(self, source: Source) -> bool:
        """Whether the slots of a source are places of the layout, not positions."""
        return source.pool is TOKENS and not self.tokens.whole


def prepare(part: Part, n: int, n_q: int) -> Pass:
    """Tables and pieces of every row group of a part that keeps something."""
    tiles = [group.tiles for group in part.rows]
    visited = np.unique(np.concatenate(tiles))
    tokens = Order(_whole(n) if part.layout.tokens is None else part.layout.tokens, n)
    gaps = [source.pool is TOKENS and tokens.gaps for source in part.sources]
    rows = []
    for group, mine in zip(part.rows, tiles, strict=True):
        if mine.size:
            every = [
                p for s in group.segments for p in pieces(s, part.sources[s.source].slots, gaps[s.source])
            ]
            at_once = tuple(p for p in every if not p.step)
            looped = tuple(p for p in every if p.step)
            rows.append(Rows(Periodic.of(np.searchsorted(visited, mine)), at_once, looped))
    extents = dict[Pool, int]()
    for piece in (piece for group in rows for piece in (*group.at_once, *group.looped)):
        source = part.sources[piece.source]
        extents[source.pool] = max(extents.get(source.pool, source.slots), piece.end)
    queries = Order(_queries(part, visited, n_q), n_q)
    return Pass(
        part.block_q, part.sources, tuple(rows), queries, tokens, tuple(extents), tuple(extents.values())
    )


def _queries(part: Part, visited: Int32, n_q: int) -> Int32:
    """The query at each place of the visited tiles."""
    places = -(-n_q // part.block_q) * part.block_q
    order = part.layout.queries
    if order is None:
        order = np.where(_whole(places) < n_q, _whole(places), np.int32(-1))
    return order.reshape(-1, part.block_q)[visited].reshape(-1)


def _whole(size: int) -> Int32:
    return np.arange(size, dtype=np.int32)


class Visit(NamedTuple):
    """The slots that a row reads at once: a run of ``size`` slots from ``starts`` (``contiguous``), or
    blocks of ``size`` from each of ``starts``. ``real``: bool [slots read], None where all are."""

    slots: jax.Array
    starts: jax.Array
    size: int
    contiguous: bool
    real: jax.Array | None


def visit(piece: Piece, starts: jax.Array, count: jax.Array | None) -> Visit:
    """What a row of a piece taken at once reads, from its row of the tables."""
    return _visit(piece, starts, count, piece.width)


def visit_step(piece: Piece, starts: jax.Array, count: jax.Array, trip: jax.Array) -> Visit:
    """What one trip of a looped piece reads."""
    first = trip * piece.step
    if piece.contiguous:
        starts = starts + first * piece.block
    else:
        starts = lax.dynamic_slice_in_dim(starts, first, piece.step)
    return _visit(piece, starts, None if piece.whole_steps else count - first, piece.step)


def _visit(piece: Piece, starts: jax.Array, count: jax.Array | None, width: int) -> Visit:
    block = piece.block
    real = None if count is None else lax.iota(jnp.int32, width * block) < count * block
    if piece.contiguous:
        slots = starts[0] + lax.iota(jnp.int32, width * block)
        return Visit(slots, starts[0], width * block, True, real)
    slots = (starts[:, None] + lax.iota(jnp.int32, block)).reshape(-1)
    return Visit(slots, starts, block, False, real)


def read(x: jax.Array, v: Visit, axis: int) -> jax.Array:
    """The slots of a visit along an axis of ``x``."""
    if v.contiguous:
        run: jax.Array = lax.dynamic_slice_in_dim(x, v.starts, v.size, axis)
        return run
    if v.size == 1:
        return jnp.take(x, v.slots, axis=axis, mode="clip")
    axis %= x.ndim
    blocks = jax.vmap(lambda s: lax.dynamic_slice_in_dim(x, s, v.size, axis), out_axes=axis)(v.starts)
    joined: jax.Array = blocks.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return joined


def add(x: jax.Array, v: Visit, update: jax.Array, axis: int) -> jax.Array:
    """``x`` with ``update`` added at the slots of a visit. Slots that are not real must get 0."""
    axis %= x.ndim
    if v.contiguous:
        return _add_run(x, v.starts, update, axis)
    if v.size == 1:
        return x.at[(slice(None),) * axis + (v.slots,)].add(update, mode="promise_in_bounds")
    blocks = jnp.moveaxis(update.reshape(*x.shape[:axis], -1, v.size, *x.shape[axis + 1 :]), axis, 0)

    def one(j: jax.Array, x: jax.Array) -> jax.Array:
        return _add_run(x, v.starts[j], blocks[j], axis)

    summed: jax.Array = lax.fori_loop(0, blocks.shape[0], one, x)
    return summed


def _add_run(x: jax.Array, start: jax.Array, update: jax.Array, axis: int) -> jax.Array:
    old = lax.dynamic_slice_in_dim(x, start, update.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(x, old + update, start, axis)
