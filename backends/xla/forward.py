"""The forward pass: one loop over the rows of each group, writing output and log-sum-exp tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.xla.logits import Floats, Logits, Runtime, Settings, accumulator, logits, matmul
from patterndsl.backends.xla.tiles import Branch, Piece, Rows, Tables, Visit, read, visit, visit_step
from patterndsl.plan.plan import Source


class State(NamedTuple):
    """A softmax under way: ``top`` the largest logit and ``total`` the sum of exp(logit − top), [B, K, M];
    ``sums`` the values weighted so, [B, K, M, Hv]."""

    top: jax.Array
    total: jax.Array
    sums: jax.Array


def forward(settings: Settings, branch: Branch, x: Floats, run: Runtime) -> tuple[jax.Array, jax.Array]:
    """The normalised output [tiles, B, K, M, Hv] and log-sum-exp [tiles, B, K, M] of a branch."""
    dtype = accumulator(x.q.dtype)
    rows_shape = x.q.shape[:-1]
    v_head_dim = x.v[0].shape[-1] if x.v else 0
    result = jnp.zeros((*rows_shape, v_head_dim), dtype), jnp.full(rows_shape, -jnp.inf, dtype)
    for i, (sources, groups) in enumerate(branch.parts):
        for rows in groups:

            def row(
                carry: tuple[jax.Array, jax.Array],
                tables: Tables,
                rows: Rows = rows,
                sources: tuple[Source, ...] = sources,
                later: bool = i > 0,
            ) -> tuple[tuple[jax.Array, jax.Array], None]:
                out, lse = carry
                new = _finish(_attend(settings, branch, sources, rows, tables, x, run))
                if later:
                    new = _merge(_tile(out, tables.tile), _tile(lse, tables.tile), *new)
                out = lax.dynamic_update_index_in_dim(out, new[0], tables.tile, 0)
                return (out, lax.dynamic_update_index_in_dim(lse, new[1], tables.tile, 0)), None

            result, _ = lax.scan(row, result, rows.tables())
    return result


def _tile(x: jax.Array, tile: jax.Array) -> jax.Array:
    row: jax.Array = lax.dynamic_index_in_dim(x, tile, keepdims=False)
    return row


def _attend(
    settings: Settings,
    branch: Branch,
    sources: tuple[Source, ...],
    rows: Rows,
    tables: Tables,
    x: Floats,
    run: Runtime,
) -> State:
    """One row: a softmax over all that it takes at once, then step by step over what it loops over."""
    q = _tile(x.q, tables.tile)
    dtype = accumulator(q.dtype)

    def look(piece: Piece, at: Visit) -> tuple[jax.Array, jax.Array]:
        source = sources[piece.source]
        found: Logits = logits(settings, branch, source, piece, at, x, run, tables.tile, q)
        return found.value.reshape(*q.shape[:-1], -1), read(x.v[branch.pool(source)], at, -2)

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


def _merge(
    out: jax.Array, lse: jax.Array, other_out: jax.Array, other_lse: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Two disjoint parts of one softmax."""
    both = jnp.logaddexp(lse, other_lse)
    safe = jnp.where(both == -jnp.inf, 0.0, both)
    a, b = jnp.exp(lse - safe), jnp.exp(other_lse - safe)
    return out * a[..., None] + other_out * b[..., None], both
