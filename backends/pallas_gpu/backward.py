"""The backward pass: two kernels, one over tiles of queries for dq, one over blocks of keys for dk and dv.

Both compute the probabilities anew from the log-sum-exp. Every sum is made by one warpgroup in the order of
the tables, without atomics, so that the same call gives the same bits.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.pallas_gpu.forward import LOG2E, Indices, Settings, logits_of, pairs_of
from patterndsl.backends.pallas_gpu.mosaic import load, pallas
from patterndsl.backends.pallas_gpu.pipeline import (
    GROUP,
    Ring,
    Shape,
    fill,
    launch,
    ring,
    row_of,
    shaped,
    split,
    swizzled,
)


def dq_shape(head_dim: int) -> Shape:
    """Tiles of `queries_backward`."""
    return Shape(2, 128, 2) if head_dim <= 64 else Shape(2, 64, 2)


def dkv_shape(head_dim: int) -> Shape:
    """Tiles of `keys_backward`: ``block`` counts queries, warpgroups take 64 keys each."""
    return Shape(2, 64, 2)


def _gradients(
    settings: Settings, s: Any, dp: Any, lse: Any, delta: Any, mask: Any, fall: Any
) -> tuple[Any, Any, Any]:
    """Probabilities and the gradients of logits and of scores (without the scale), from scores, the gradients
    of probabilities, and two numbers a query, broadcast. ``fall``: what distance takes of the logits, to base
    2, or None."""
    score, factor = logits_of(settings, s)
    logits, factor = (score, factor) if fall is None else (score * factor - fall, 1.0)
    kept = logits if mask is None else jnp.where(mask, logits, -jnp.inf)
    p = jnp.exp2(kept * factor - lse)
    d_logits = ds = p * (dp - delta)
    if settings.softcap is not None:
        ds *= 1.0 - score * score * (1.0 / settings.softcap**2)
    return p, d_logits, ds


def queries_backward(
    settings: Settings,
    shape: Shape,
    x: Indices,
    operands: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    lse: jax.Array,
    delta: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """The gradient of q [B, places, N, H] from (q, k, v, d_out). ``lse`` (base 2, +∞ where a query has no
    key), ``delta``: float32 [B, N, places, padded to tiles]. With slopes also what each query adds to their
    gradient, likewise."""
    pl, plgpu = pallas()

    q, k, v, _ = operands
    batch, _, heads, head_dim = q.shape
    per_kv, v_dim, dtype = heads // k.shape[2], v.shape[3], q.dtype
    block, stages, groups = shape.block, shape.stages, shape.groups
    per_query, pairs = plgpu.Layout.WGMMA.reduce(1), (GROUP, block)

    def body(
        x: Indices, q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, lse_ref: Any, delta_ref: Any,
        dq_ref: Any, *rest: Any,
    ) -> None:  # fmt: skip
        *slopes_ref, q_s, do_s, rows_s, ready, keys, values = rest
        row, head = row_of(x), lax.axis_index("head")
        b, count = row.batch, row.count
        (k_s,), (v_s,) = keys.buffers, values.buffers

        def compute(group: Any) -> None:
            base = row.tile * shape.tile + group * GROUP
            mine = b, pl.ds(base, GROUP), head
            q_mine, do_mine = q_s.at[group], do_s.at[group]
            plgpu.copy_gmem_to_smem(q_ref.at[mine], q_mine, ready.at[group])
            plgpu.copy_gmem_to_smem(do_ref.at[mine], do_mine, ready.at[group])
            for i, ref in enumerate((lse_ref, delta_ref)):
                plgpu.copy_gmem_to_smem(
                    ref.at[b, head, pl.ds(base, GROUP)], rows_s.at[i, group], ready.at[group]
                )
            plgpu.barrier_wait(ready.at[group])
            lse, delta = (load(rows_s.at[i, group], per_query) for i in range(2))
            acc = plgpu.layout_cast(jnp.zeros((GROUP, head_dim), jnp.float32), plgpu.Layout.WGMMA)
            slope = x.slopes[head] * LOG2E if settings.slopes else None
            reach = [plgpu.layout_cast(jnp.zeros((GROUP,), jnp.float32), per_query)] * len(slopes_ref)

            def step(j: Any, carry: Any, apply: bool) -> Any:
                acc, reach = carry
                slot = lax.rem(j, jnp.int32(stages))
                plgpu.barrier_wait(keys.ready.at[slot])

                def scores(ref: Any) -> Any:
                    plgpu.wgmma(ref, q_mine, k_s.at[slot].transpose((1, 0)))
                    return ref[...]

                s = pl.run_scoped(scores, plgpu.ACC(pairs, jnp.float32))
                plgpu.barrier_wait(values.ready.at[slot])

                def weights(ref: Any) -> Any:
                    plgpu.wgmma(ref, do_mine, v_s.at[slot].transpose((1, 0)))
                    return ref[...]

                dp = pl.run_scoped(weights, plgpu.ACC(pairs, jnp.float32))
                plgpu.barrier_arrive(values.free.at[slot])
                mask = away = None
                if apply or settings.lengths or settings.slopes:
                    first_k = x.blocks[row.table, row.first + j] * block
                    mask, away = pairs_of(settings, x, b, base, first_k, pairs, apply=apply)
                fall = None if away is None else away * slope
                wide_lse, wide_delta = (lax.broadcast_in_dim(a, pairs, [0]) for a in (lse, delta))
                _, d_logits, ds = _gradients(settings, s, dp, wide_lse, wide_delta, mask, fall)
                reach = [so_far - (d_logits * away).sum(axis=1) for so_far in reach]
                low = ds.astype(dtype)

                def add(ref: Any) -> None:
                    plgpu.wgmma(ref, low, k_s.at[slot])

                acc = pl.run_state(add)(plgpu.ACC.init(acc))
                plgpu.barrier_arrive(keys.free.at[slot])
                return acc, reach

            carry = lax.fori_loop(0, row.whole, lambda j, c: step(j, c, False), (acc, reach))
            acc, reach = lax.fori_loop(row.whole, count, lambda j, c: step(j, c, True), carry)
            q_mine[...] = (acc * settings.scale).astype(dtype)
            slopes_mine = rows_s.at[0, group]
            for so_far in reach:
                slopes_mine[...] = so_far
            plgpu.commit_smem()
            for ref in slopes_ref:
                plgpu.copy_smem_to_gmem(slopes_mine, ref.at[b, head, pl.ds(base, GROUP)])
            plgpu.copy_smem_to_gmem(q_mine, dq_ref.at[mine])
            plgpu.wait_smem_to_gmem(0)

        def copy() -> None:
            kv_head = lax.div(head, jnp.int32(per_kv))

            def sources(j: Any) -> tuple[tuple[Any], tuple[Any]]:
                at = b, pl.ds(x.blocks[row.table, row.first + j] * block, block), kv_head
                return (k_ref.at[at],), (v_ref.at[at],)

            fill(shape, count, (keys, values), sources)

        split(groups, compute, copy, 232)

    scratch = (
        swizzled((groups, GROUP, head_dim), dtype),
        swizzled((groups, GROUP, v_dim), dtype),
        plgpu.SMEM((2, groups, GROUP), jnp.float32),
        plgpu.Barrier(num_arrivals=4, num_barriers=groups),
        ring(shape, swizzled((stages, block, head_dim), dtype)),
        ring(shape, swizzled((stages, block, v_dim), dtype)),
    )
    rows = x.rows.shape[1]
    of_slopes = [shaped((batch, heads, rows * shape.tile), jnp.float32)] * settings.slopes
    out = (shaped(q.shape, dtype), *of_slopes)
    dq, *reach = launch(body, (x, *operands, lse, delta), out, scratch, (heads, rows, batch), groups + 1)
    return dq, reach[0] if reach else None


def keys_backward(
    settings: Settings,
    shape: Shape,
    x: Indices,
    operands: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    lse: jax.Array,
    delta: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradients of k and v, as `queries_backward`; the rows of the tables in ``x`` are blocks of keys.
    Query heads that share a key head are summed in the kernel, one after the other."""
    pl, plgpu = pallas()

    q, k, v, _ = operands
    batch, _, heads, head_dim = q.shape
    per_kv, v_dim, dtype = heads // k.shape[2], v.shape[3], q.dtype
    block, stages, groups = shape.block, shape.stages, shape.groups
    per_query, pairs = plgpu.Layout.WGMMA.reduce(0), (GROUP, block)

    def body(
        x: Indices, q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, lse_ref: Any, delta_ref: Any,
        dk_ref: Any, dv_ref: Any, k_s: Any, v_s: Any, ready: Any, queries: Ring, d_outs: Ring,
    ) -> None:  # fmt: skip
        row, kv_head = row_of(x), lax.axis_index("head")
        b, whole, count = row.batch, row.whole, row.count
        (q_s, lse_s), (do_s, delta_s) = queries.buffers, d_outs.buffers
        ragged = count - whole

        def at(j: Any) -> tuple[Any, Any]:
            """Query head (of those of the key head) and place in the table of a step: full tiles of all heads
            first."""
            late = j >= whole * per_kv
            step = jnp.where(late, j - whole * per_kv, j)
            size = lax.max(jnp.where(late, ragged, whole), jnp.int32(1))
            return lax.div(step, size), lax.rem(step, size) + jnp.where(late, whole, jnp.int32(0))

        def compute(group: Any) -> None:
            base = row.tile * shape.tile + group * GROUP
            mine = b, pl.ds(base, GROUP), kv_head
            k_mine, v_mine = k_s.at[group], v_s.at[group]
            plgpu.copy_gmem_to_smem(k_ref.at[mine], k_mine, ready.at[group])
            plgpu.copy_gmem_to_smem(v_ref.at[mine], v_mine, ready.at[group])
            plgpu.barrier_wait(ready.at[group])
            zero = (jnp.zeros((GROUP, size), jnp.float32) for size in (head_dim, v_dim))
            acc = tuple(plgpu.layout_cast(a, plgpu.Layout.WGMMA) for a in zero)

            def step(j: Any, acc: Any, apply: bool) -> Any:
                dk, dv = acc
                slot = lax.rem(j, jnp.int32(stages))
                plgpu.barrier_wait(queries.ready.at[slot])

                def scores(ref: Any) -> Any:
                    plgpu.wgmma(ref, k_mine, q_s.at[slot].transpose((1, 0)))
                    return ref[...]

                s = pl.run_scoped(scores, plgpu.ACC(pairs, jnp.float32))
                lse = load(lse_s.at[slot], per_query)
                plgpu.barrier_wait(d_outs.ready.at[slot])

                def weights(ref: Any) -> Any:
                    plgpu.wgmma(ref, v_mine, do_s.at[slot].transpose((1, 0)))
                    return ref[...]

                dp = pl.run_scoped(weights, plgpu.ACC(pairs, jnp.float32))
                delta = load(delta_s.at[slot], per_query)
                mask = fall = None
                if apply or settings.lengths or settings.slopes:
                    of_kv, place = at(j)
                    first_q = x.blocks[row.table, row.first + place] * block
                    mask, away = pairs_of(
                        settings, x, b, first_q, base, pairs[::-1], keys_first=True, apply=apply
                    )
                    if away is not None:
                        fall = away * (x.slopes[kv_head * per_kv + of_kv] * LOG2E)
                wide_lse, wide_delta = (lax.broadcast_in_dim(a, pairs, [1]) for a in (lse, delta))
                p, _, ds = _gradients(settings, s, dp, wide_lse, wide_delta, mask, fall)
                p_low, ds_low = p.astype(dtype), ds.astype(dtype)

                def add_values(ref: Any) -> None:
                    plgpu.wgmma(ref, p_low, do_s.at[slot])

                dv = pl.run_state(add_values)(plgpu.ACC.init(dv))
                plgpu.barrier_arrive(d_outs.free.at[slot])

                def add_keys(ref: Any) -> None:
                    plgpu.wgmma(ref, ds_low, q_s.at[slot])

                dk = pl.run_state(add_keys)(plgpu.ACC.init(dk))
                plgpu.barrier_arrive(queries.free.at[slot])
                return dk, dv

            acc = lax.fori_loop(0, whole * per_kv, lambda j, c: step(j, c, False), acc)
            dk, dv = lax.fori_loop(whole * per_kv, count * per_kv, lambda j, c: step(j, c, True), acc)
            k_mine[...] = (dk * settings.scale).astype(dtype)
            v_mine[...] = dv.astype(dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(k_mine, dk_ref.at[mine])
            plgpu.copy_smem_to_gmem(v_mine, dv_ref.at[mine])
            plgpu.wait_smem_to_gmem(0)

        def copy() -> None:
            def sources(j: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
                of_kv, place = at(j)
                head = kv_head * per_kv + of_kv
                span = pl.ds(x.blocks[row.table, row.first + place] * block, block)
                wide, narrow = (b, span, head), (b, head, span)
                return (q_ref.at[wide], lse_ref.at[narrow]), (do_ref.at[wide], delta_ref.at[narrow])

            fill(shape, count * per_kv, (queries, d_outs), sources)

        split(groups, compute, copy, 232)

    numbers = plgpu.SMEM((stages, block), jnp.float32)
    scratch = (
        swizzled((groups, GROUP, head_dim), dtype),
        swizzled((groups, GROUP, v_dim), dtype),
        plgpu.Barrier(num_arrivals=2, num_barriers=groups),
        ring(shape, swizzled((stages, block, head_dim), dtype), numbers),
        ring(shape, swizzled((stages, block, v_dim), dtype), numbers),
    )
    out = (shaped(k.shape, dtype), shaped(v.shape, dtype))
    grid = (k.shape[2], x.rows.shape[1], batch)
    dk, dv = launch(body, (x, *operands, lse, delta), out, scratch, grid, groups + 1)
    return dk, dv
