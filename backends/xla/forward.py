"""The forward pass: one loop over the rows of each group, writing output and log-sum-exp tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.xla.live import Known, known, skip
from patterndsl.backends.xla.logits import (
    Axes,
    Floats,
    Logits,
    Runtime,
    Settings,
    accumulator,
    logits,
    matmul,
)
from patterndsl.backends.xla.tiles import Pass, Piece, Rows, Tables, Visit, read, visit, visit_step

AXES = Axes(keys_first=False)


class State(NamedTuple):
    """A softmax under way: ``top`` the largest logit and ``total`` the sum of exp(logit − top), [B, K, M];
    ``sums`` the values weighted so, [B, K, M, Hv]."""

    top: jax.Array
    total: jax.Array
    sums: jax.Array


def forward(settings: Settings, part: Pass, x: Floats, run: Runtime) -> tuple[jax.Array, jax.Array]:
    """The normalised output [tiles, B, K, M, Hv] and log-sum-exp [tiles, B, K, M] of a part."""
    dtype = accumulator(x.q.dtype)
    shape = x.q.shape[:-1]
    result = jnp.zeros((*shape, x.v[0].shape[-1]), dtype), jnp.full(shape, -jnp.inf, dtype)
    extremes = known(settings, part, run)
    for rows in part.rows:

        def row(
            carry: tuple[jax.Array, jax.Array], tables: Tables, rows: Rows = rows
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            new = _finish(_attend(settings, part, rows, tables, x, run, extremes))
            out, lse = (
                lax.dynamic_update_index_in_dim(a, b, tables.tile, 0) for a, b in zip(carry, new, strict=True)
            )
            return (out, lse), None

        result, _ = lax.scan(row, result, rows.tables())
    return result


def _tile(x: jax.Array, tile: jax.Array) -> jax.Array:
    row: jax.Array = lax.dynamic_index_in_dim(x, tile, keepdims=False)
    return row


def _attend(
    settings: Settings,
    part: Pass,
    rows: Rows,
    tables: Tables,
    x: Floats,
    run: Runtime,
    extremes: Known,
) -> State:
    """One row: a softmax over all that it takes at once, then step by step over what it loops over."""
    q = _tile(x.q, tables.tile)
    dtype = accumulator(q.dtype)

    def look(piece: Piece, at: Visit) -> tuple[jax.Array, jax.Array]:
        source = part.sources[piece.source]
        found: Logits = logits(settings, AXES, part, source, piece, at, x, run, tables.tile, q)
        return found.value.reshape(*q.shape[:-1], -1), read(x.v[part.pool(source)], at, -2)

    state = State(
        jnp.full(q.shape[:-1], -jnp.inf, dtype),
        jnp.zeros(q.shape[:-1], dtype),
        jnp.zeros((*q.shape[:-1], x.v[0].shape[-1]), dtype),
    )
    once = len(rows.at_once)
    if once:
        seen = [
            look(piece, visit(piece, starts, count))
            for piece, starts, count in zip(rows.at_once, tables.starts, tables.counts, strict=False)
        ]
        state = _absorb(None, seen)
    for piece, starts, count in zip(rows.looped, tables.starts[once:], tables.counts[once:], strict=True):
        piece, starts, count = skip(settings, part, piece, starts, count, run, tables.tile, extremes)

        def trip(
            j: jax.Array,
            state: State,
            piece: Piece = piece,
            starts: jax.Array = starts,
            count: jax.Array = count,
        ) -> State:
            return _absorb(state, [look(piece, visit_step(piece, starts, count, j))])

        state = lax.fori_loop(0, -(-count // piece.step), trip, state)
    return state


def _absorb(state: State | None, seen: list[tuple[jax.Array, jax.Array]]) -> State:
    """The softmax taken further over logits [B, K, M, W] and their values [B, K, W, Hv]."""
    tops = [jnp.max(s, axis=-1) for s, _ in seen]
    top = tops[0] if state is None else jnp.maximum(state.top, tops[0])
    for t in tops[1:]:
        top = jnp.maximum(top, t)
    finite = jnp.where(top == -jnp.inf, 0.0, top)  # a row that has kept nothing so far
    total: jax.Array | float = 0.0
    sums: jax.Array | float = 0.0
    if state is not None:
        shrink = jnp.exp(state.top - finite)
        total, sums = state.total * shrink, state.sums * shrink[..., None]
    for s, v in seen:
        p = jnp.exp(s - finite[..., None])
        total = total + jnp.sum(p, axis=-1)
        sums = sums + matmul(p.astype(v.dtype), v, (3, 2))
    return State(top, jnp.asarray(total), jnp.asarray(sums))


def _finish(state: State) -> tuple[jax.Array, jax.Array]:
    """Normalised output and log-sum-exp; 0 and −inf where nothing was kept."""
    empty = state.total == 0
    total = jnp.where(empty, 1.0, state.total)
    lse = jnp.where(empty, -jnp.inf, state.top + jnp.log(total))
    return jnp.where(empty[..., None], 0.0, state.sums / total[..., None]), lse
