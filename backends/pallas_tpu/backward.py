"""The backward pass: two kernels, one over tiles of queries for dq, one over blocks of keys for dk and dv.

Both compute the probabilities anew from the log-sum-exp. Every sum is made by one core in the order of the
tables, so that the same call gives the same bits.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from patterndsl.backends.pallas_tpu.kernel import (
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


def _gradients(
    settings: Settings, numbers: Indices, tile: Tile, rows: Any, refs: Any, apply: bool
) -> tuple[Any, Any, Any]:
    """Probabilities, the gradients of scores (without the scale), and those of the heads' slopes for each
    query, [1, queries] (None without slopes)."""
    q, k, v, d_out, lse, delta = refs
    found = logits(settings, product(k, q, (1, 1)), numbers, tile, rows, apply)
    p = jnp.exp2(found.value * found.factor - lse)
    ds = p * (product(v, d_out, (1, 1)) - delta)
    d_slopes = None
    if found.distance is not None:
        d_slopes = -jnp.sum(ds * found.distance, axis=0, keepdims=True)
    if settings.softcap is not None:
        ds *= 1.0 - found.capped * found.capped * (1.0 / settings.softcap**2)
    return p, ds, d_slopes


def queries_backward(
    settings: Settings, kinds: tuple[bool, bool], name: str, table: Table, x: Indices, *across: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The gradient of q [B, groups, tiles, H, queries] and those of slopes [B, groups, tiles, 1, queries],
    from (q, k, v, d_out, lse, delta): q and d_out [B, groups, heads, places, ·], k and v [B, K, places, ·],
    float32 [B, groups, tiles, 1, queries] (``lse`` of base 2, +∞ where a query has no key)."""
    q, _, v, *_ = across
    batch, groups, _, places, head_dim = q.shape
    v_dim, lanes, tiles = v.shape[3], settings.queries, places // settings.block_q
    operands = index_operands(settings, x, by_column=False) + _operands(settings, across, by_column=False)
    sizes = (head_dim, 1) if settings.slopes else (head_dim,)
    results = [
        (
            shaped((batch, groups, tiles, size, lanes), dtype),
            Spec((1, 1, 1, size, lanes), lambda b, h, i, j: (b, h, i, 0, 0)),
        )
        for size, dtype in zip(sizes, (q.dtype, jnp.float32), strict=False)
    ]

    def body(numbers: Indices, where: Any, *refs: Any) -> None:
        b, h, row, block, what = where
        tile = Tile(b, h, row * settings.block_q, block * settings.block_k)
        rows, loads, made = _split(settings, refs, len(operands))
        outs, sums = made[: len(sizes)], made[len(sizes) :]

        def first() -> None:
            for ref in sums:
                ref[...] = jnp.zeros(ref.shape, jnp.float32)

        def step(apply: bool) -> None:
            values = loads()
            _, ds, d_slopes = _gradients(settings, numbers, tile, rows, values, apply)
            sums[0][...] += product(values[1], ds.astype(q.dtype), (0, 0))
            if d_slopes is not None:
                sums[1][...] += d_slopes

        def last() -> None:
            outs[0][0, 0, 0] = (sums[0][...] * settings.scale).astype(q.dtype)
            if settings.slopes:
                outs[1][0, 0, 0] = sums[1][...]

        visit(settings, numbers, tile, what, kinds, first, step, last)

    scratch = [(size, lanes) for size in sizes]
    flops = 2 * (2 * head_dim + v_dim)
    dq, *rest = call(
        settings, f"{name}_dq".replace(" ", "_"), body, table, x, operands, results, scratch,
        (batch, groups), flops,
    )  # fmt: skip
    return dq, rest[0] if rest else None


def keys_backward(
    settings: Settings, kinds: tuple[bool, bool], name: str, table: Table, x: Indices, *across: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of k and v [B, groups, places, ·], as `queries_backward`; the rows of the table are
    blocks of keys. What groups of heads that share a key head find is left to be added."""
    q, k, v, *_ = across
    batch, groups, _, _, head_dim = q.shape
    v_dim, places, block_k = v.shape[3], k.shape[2], settings.block_k
    operands = index_operands(settings, x, by_column=True) + _operands(settings, across, by_column=True)
    dtype = jnp.float32 if settings.per_kv > 1 else k.dtype
    results = [
        (
            shaped((batch, groups, places, size), dtype),
            Spec((1, 1, block_k, size), lambda b, h, i, j: (b, h, i, 0)),
        )
        for size in (head_dim, v_dim)
    ]

    def body(numbers: Indices, where: Any, *refs: Any) -> None:
        b, h, row, block, what = where
        tile = Tile(b, h, block * settings.block_q, row * block_k)
        rows, loads, (dk_ref, dv_ref, *sums) = _split(settings, refs, len(operands))

        def first() -> None:
            for ref in sums:
                ref[...] = jnp.zeros(ref.shape, jnp.float32)

        def step(apply: bool) -> None:
            values = loads()
            p, ds, _ = _gradients(settings, numbers, tile, rows, values, apply)
            sums[0][...] += product(ds.astype(k.dtype), values[0], (1, 0))
            sums[1][...] += product(p.astype(k.dtype), values[3], (1, 0))

        def last() -> None:
            dk_ref[0, 0] = (sums[0][...] * settings.scale).astype(dtype)
            dv_ref[0, 0] = sums[1][...].astype(dtype)

        visit(settings, numbers, tile, what, kinds, first, step, last)

    scratch = [(block_k, head_dim), (block_k, v_dim)]
    flops = 4 * (head_dim + v_dim)
    dk, dv = call(
        settings, f"{name}_dk_dv".replace(" ", "_"), body, table, x, operands, results, scratch,
        (batch, groups), flops,
    )  # fmt: skip
    return dk, dv


def _operands(settings: Settings, across: tuple[jax.Array, ...], by_column: bool) -> list[tuple[Any, Spec]]:
    """The specs of (q, k, v, d_out, lse, delta)."""
    per_kv = settings.per_kv

    def of_queries(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
        return b, h, 0, j if by_column else i, 0

    def of_keys(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
        return b, jax.lax.div(h, jnp.int32(per_kv)), i if by_column else j, 0

    def of_rows(b: Any, h: Any, i: Any, j: Any) -> tuple[Any, ...]:
        return b, h, j if by_column else i, 0, 0

    def spec(number: int, x: jax.Array) -> Spec:
        if number in (0, 3):
            return Spec((1, 1, settings.heads, settings.block_q, x.shape[-1]), of_queries, by_column)
        if number in (1, 2):
            return Spec((1, 1, settings.block_k, x.shape[-1]), of_keys, not by_column)
        return Spec((1, 1, 1, 1, settings.queries), of_rows, by_column)

    return [(x, spec(number, x)) for number, x in enumerate(across)]


def _split(settings: Settings, refs: Any, operands: int) -> tuple[Any, Any, Any]:
    """The refs of integers, a function that loads (q, k, v, d_out, lse, delta), and the refs of the rest."""
    *rows, q, k, v, d_out, lse, delta = refs[:operands]

    def loads() -> tuple[Any, ...]:
        packed = (ref[0, 0].reshape(settings.queries, ref.shape[-1]) for ref in (q, d_out))
        of_q, of_out = packed
        return of_q, k[0, 0], v[0, 0], of_out, lse[0, 0, 0], delta[0, 0, 0]

    return (rows[0], rows[1]) if rows else (None, None), loads, refs[operands:]
