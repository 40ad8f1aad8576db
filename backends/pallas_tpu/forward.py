"""The forward pass: for each tile of queries an online softmax over the blocks of keys that it visits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.pallas_tpu.kernel import (
    LEAST,
    LOG2E,
    Indices,
    Settings,
    Spec,
    Table,
    Tile,
    call,
    index_operands,
    logits,
    product,
    shaped,
    visit,
)


def forward(
    settings: Settings,
    kinds: tuple[bool, bool],
    name: str,
    table: Table,
    x: Indices,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Normalised output [B, groups, tiles, Hv, queries] in q's dtype and log-sum-exp [B, groups, tiles, 1,
    queries] of q [B, groups, heads, places, H] over k [B, K, places, H] and v [B, K, Hv, places]."""
    batch, groups, heads, places, head_dim = q.shape
    v_dim, lanes, block_k, tiles = v.shape[2], settings.queries, settings.block_k, places // settings.block_q

    def of_keys(b: Any, h: Any, j: Any) -> tuple[Any, Any, Any]:
        return b, lax.div(h, jnp.int32(settings.per_kv)), j

    def keys(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
        return (*of_keys(b, h, j), 0)

    def values(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
        b, kv, j = of_keys(b, h, j)
        return b, kv, 0, j

    operands = [
        *index_operands(settings, x, by_column=False),
        (q, Spec((1, 1, heads, settings.block_q, head_dim), lambda b, h, i, j: (b, h, 0, i, 0))),
        (k, Spec((1, 1, block_k, head_dim), keys, True)),
        (v, Spec((1, 1, v_dim, block_k), values, True)),
    ]
    results = [
        (shaped((batch, groups, tiles, size, lanes), dtype), Spec((1, 1, 1, size, lanes), _tile))
        for size, dtype in ((v_dim, q.dtype), (1, jnp.float32))
    ]

    def body(numbers: Indices, where: Any, *refs: Any) -> None:
        b, h, row, block, what = where
        *rows, q_ref, k_ref, v_ref, out_ref, lse_ref, top_ref, total_ref, acc_ref = refs
        tile = Tile(b, h, row * settings.block_q, block * block_k)

        def first() -> None:
            top_ref[...] = jnp.full((1, lanes), LEAST, jnp.float32)
            total_ref[...] = jnp.zeros((1, lanes), jnp.float32)
            acc_ref[...] = jnp.zeros((v_dim, lanes), jnp.float32)

        def step(apply: bool) -> None:
            s = product(k_ref[0, 0], q_ref[0, 0].reshape(lanes, head_dim), (1, 1))
            found = logits(settings, s, numbers, tile, _pair(rows), apply)
            old = top_ref[...]
            top = jnp.maximum(old, jnp.max(found.value, axis=0, keepdims=True) * found.factor)
            shrink = jnp.exp2(old - top)
            p = jnp.exp2(found.value * found.factor - top)
            top_ref[...] = top
            total_ref[...] = total_ref[...] * shrink + jnp.sum(p, axis=0, keepdims=True)
            acc_ref[...] = acc_ref[...] * shrink + product(v_ref[0, 0], p.astype(v.dtype), (1, 0))

        def last() -> None:
            total = total_ref[...]
            some = total > 0.0
            safe = jnp.where(some, total, 1.0)
            out_ref[0, 0, 0] = (acc_ref[...] * (1.0 / safe)).astype(q.dtype)
            lse_ref[0, 0, 0] = jnp.where(some, top_ref[...] * (1 / LOG2E) + jnp.log(safe), -jnp.inf)

        visit(settings, numbers, tile, what, kinds, first, step, last)

    scratch = [(1, lanes), (1, lanes), (v_dim, lanes)]
    flops = 2 * (head_dim + v_dim)
    found = call(settings, name, body, table, x, operands, results, scratch, (batch, groups), flops)
    out, lse = found
    return out, lse


def _tile(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
    return b, h, i, 0, 0


def _pair(rows: Any) -> tuple[Any, Any]:
    return (rows[0], rows[1]) if rows else (None, None)
