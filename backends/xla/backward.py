"""The backward pass: one loop over the rows of each group.

A row recomputes its logits, writes the gradient of its queries, and adds to those of keys, values, bias and
slopes where it read them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.xla.live import Known, known, skip
from patterndsl.backends.xla.logits import Axes, Floats, Runtime, Settings, accumulator, logits, matmul
from patterndsl.backends.xla.tiles import Pass, Piece, Rows, Tables, Visit, add, read, visit, visit_step

AXES = Axes(keys_first=True)


def backward(
    settings: Settings,
    part: Pass,
    x: Floats,
    run: Runtime,
    out: jax.Array,
    lse: jax.Array,
    d_out: jax.Array,
    d_lse: jax.Array,
) -> Floats:
    """The gradients of the operands, in their dtypes, from those of output and log-sum-exp."""
    empty = lse == -jnp.inf
    delta = jnp.sum(d_out * out, axis=-1) - jnp.where(empty, 0.0, d_lse)
    row_data = d_out.astype(x.q.dtype), jnp.where(empty, 0.0, lse), delta
    total = jax.tree.map(lambda a: jnp.zeros(a.shape, accumulator(a.dtype)), x)
    extremes = known(settings, part, run)
    for rows in part.rows:

        def row(total: Floats, tables: Tables, rows: Rows = rows) -> tuple[Floats, None]:
            return _row(settings, part, rows, tables, x, run, row_data, extremes, total), None

        total, _ = lax.scan(row, total, rows.tables())
    gradients: Floats = jax.tree.map(lambda g, a: g.astype(a.dtype), total, x)
    return gradients


def _row(
    settings: Settings,
    part: Pass,
    rows: Rows,
    tables: Tables,
    x: Floats,
    run: Runtime,
    row_data: tuple[jax.Array, jax.Array, jax.Array],
    extremes: Known,
    total: Floats,
) -> Floats:
    tile = tables.tile
    q = lax.dynamic_index_in_dim(x.q, tile, keepdims=False)
    d_out, lse, delta = (lax.dynamic_index_in_dim(a, tile, keepdims=False) for a in row_data)

    def look(piece: Piece, at: Visit, total: Floats) -> Floats:
        """``total`` after one visit; its ``q`` is that of this tile alone."""
        source = part.sources[piece.source]
        pool = part.pool(source)
        k, v = read(x.k[pool], at, -2), read(x.v[pool], at, -2)
        found = logits(settings, AXES, part, source, piece, at, x, run, tile, q)
        shape = found.value.shape
        flat = (*shape[:3], -1)
        p = jnp.exp(found.value.reshape(flat) - lse[:, :, None])
        d_logits = p * (matmul(v, d_out, (3, 3)) - delta[:, :, None])
        bias, slopes = total.bias, total.slopes
        if bias is not None:
            update = _sum_to(AXES.to_bias(d_logits.reshape(shape)), bias[pool].shape)
            bias = _replace(bias, pool, _add_bias(bias[pool], at, update, tile * part.block_q))
        if slopes is not None:
            assert found.distance is not None
            slopes = slopes - jnp.sum(d_logits.reshape(shape) * found.distance, axis=(0, 2, 4))
        if found.capped is not None:
            assert settings.softcap is not None
            d_logits = d_logits * (1.0 - jnp.square(found.capped.reshape(flat) / settings.softcap))
        d_scores = (d_logits * settings.scale).astype(q.dtype)
        d_q = jnp.swapaxes(matmul(jnp.swapaxes(k, 2, 3), d_scores, (3, 2)), 2, 3)
        d_k = add(total.k[pool], at, matmul(d_scores, q, (3, 2)), -2)
        d_v = add(total.v[pool], at, matmul(p.astype(v.dtype), d_out, (3, 2)), -2)
        return Floats(
            total.q + d_q,
            _replace(total.k, pool, d_k),
            _replace(total.v, pool, d_v),
            bias,
            slopes,
        )

    all_q = total.q
    total = total._replace(q=lax.dynamic_index_in_dim(all_q, tile, keepdims=False))
    once = len(rows.at_once)
    for piece, starts, count in zip(rows.at_once, tables.starts, tables.counts, strict=False):
        total = look(piece, visit(piece, starts, count), total)
    for piece, starts, count in zip(rows.looped, tables.starts[once:], tables.counts[once:], strict=True):
        piece, starts, count = skip(settings, part, piece, starts, count, run, tile, extremes)

        def trip(
            j: jax.Array,
            total: Floats,
            piece: Piece = piece,
            starts: jax.Array = starts,
            count: jax.Array = count,
        ) -> Floats:
            return look(piece, visit_step(piece, starts, count, j), total)

        total = lax.fori_loop(0, -(-count // piece.step), trip, total)
    return total._replace(q=lax.dynamic_update_index_in_dim(all_q, total.q, tile, 0))


def _replace(items: tuple[jax.Array, ...], i: int, new: jax.Array) -> tuple[jax.Array, ...]:
    return (*items[:i], new, *items[i + 1 :])


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the batch and head axes along which the bias was broadcast."""
    broadcast = tuple(i for i in range(3) if shape[i] == 1 and x.shape[i] != 1)
    return jnp.sum(x, axis=broadcast, keepdims=True)


def _add_bias(bias: jax.Array, at: Visit, update: jax.Array, first: jax.Array) -> jax.Array:
    """``bias`` with ``update`` added at the queries from ``first`` and the slots of a visit."""
    rows = lax.dynamic_slice_in_dim(bias, first, update.shape[-2], -2)
    return lax.dynamic_update_slice_in_dim(bias, add(rows, at, update, -1), first, -2)
