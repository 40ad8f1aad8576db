"""The forward pass: a warp-specialised kernel for Hopper.

A program computes one tile of queries of one head. Its first warpgroups take 64 queries each; the last one
only copies: the keys and values of the blocks that the tile's row of the tables names, ``stages`` of them
ahead. While one warpgroup is in its softmax the other has the tensor cores. Full blocks come first and need
no mask; of the others the predicate is computed in registers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.pallas.predicate import Frame, Lanes, keep
from patterndsl.backends.pallas_gpu.mosaic import load, pallas
from patterndsl.backends.pallas_gpu.pipeline import (
    GROUP,
    Ring,
    Shape,
    fill,
    launch,
    of_batch,
    ring,
    row_of,
    shaped,
    split,
    swizzled,
)
from patterndsl.ir.expr import Expr

LOG2E = math.log2(math.e)
LEAST = -3.0e38  # below every logit, and finite, so that a query without keys makes no NaN


def shape_for(head_dim: int) -> Shape:
    """What fits into shared memory and registers, the fastest of what was tried."""
    return Shape(2, 128, 2 if head_dim > 64 else 4)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed when a kernel is compiled. ``predicate`` over positions; ``inputs`` it reads;
    ``lengths``: sequences end at run time; ``tokens``: keys there are; ``reordered``: positions are looked
    up; ``gaps``: blocks may hold places without a key; ``slopes``: logits fall with distance (ALiBi)."""

    predicate: Expr
    inputs: tuple[str, ...]
    scale: float
    softcap: float | None
    lengths: bool
    tokens: int
    reordered: bool
    gaps: bool
    slopes: bool = False


class Indices(NamedTuple):
    """What a call looks up. ``rows`` [1 | B, rows, 4] and ``blocks`` [1 | B, blocks]: tables. ``scalars`` [B,
    2]: the first query's position and the sequence's length. ``q_positions``, ``k_positions`` [places]: of
    reordered parts, −1 where a place is empty, else None; ``q_inputs``, ``k_inputs`` [1 | B, places]. All are
    integers but the ``slopes``, float32 [N] or None."""

    rows: jax.Array
    blocks: jax.Array
    scalars: jax.Array
    q_positions: jax.Array | None
    k_positions: jax.Array | None
    q_inputs: tuple[jax.Array, ...]
    k_inputs: tuple[jax.Array, ...]
    slopes: Any = None


def logits_of(settings: Settings, s: Any) -> tuple[Any, float]:
    """Scores as logits times a factor that makes their exponential one of base 2, for positive scales; the
    factor is left to the caller, who has another product to fuse it with."""
    if settings.softcap is not None:
        # tanh by the exponential: the device's own has 11 bits
        twice = jnp.exp2(s * (2 * LOG2E * settings.scale / settings.softcap))
        return settings.softcap - (2 * settings.softcap) / (twice + 1.0), LOG2E
    if settings.scale > 0:
        return s, settings.scale * LOG2E
    return s * settings.scale, LOG2E


def pairs_of(
    settings: Settings,
    x: Indices,
    batch: Any,
    first_q: Any,
    first_k: Any,
    sizes: tuple[int, int],
    keys_first: bool = False,
    apply: bool = True,
) -> tuple[Any, Any]:
    """Which pairs of ``sizes`` (queries, keys) from the places ``first_q`` and ``first_k`` on are kept; of
    full tiles (not ``apply``) only which keys exist, None where all do. And how far from each other their
    tokens are, where slopes ask for it, else None."""
    pl, plgpu = pallas()

    on_q, on_k = (1, 0) if keys_first else (0, 1)
    pairs = plgpu.Layout.WGMMA

    def cast(value: Any, axes: tuple[int, ...]) -> Any:
        return plgpu.layout_cast(value, pairs if len(axes) == 2 else pairs.reduce(1 - axes[0]))

    frame = Frame(sizes[::-1] if keys_first else sizes, cast)

    def places(first: Any, axis: int) -> Lanes:
        return Lanes(cast(lax.iota(jnp.int32, frame.shape[axis]), (axis,)), (axis,), frame) + _number(
            first, frame
        )

    def read(ref: Any, first: Any, axis: int) -> Lanes:
        at = ref.at[pl.ds(first, frame.shape[axis])]
        value = load(at, pairs.reduce(1 - axis), optimized=False)
        return Lanes(value, (axis,), frame)

    offset = x.scalars[batch, 0]
    if settings.reordered:
        q = read(x.q_positions, first_q, on_q) + _number(offset, frame)
        k = read(x.k_positions, first_k, on_k)
    else:
        q, k = places(first_q + offset, on_q), places(first_k, on_k)
    kept: Any = True
    if apply:
        values = {
            name: (
                read(of_q.at[of_batch(of_q, batch)], first_q, on_q),
                read(of_k.at[of_batch(of_k, batch)], first_k, on_k),
            )
            for name, of_q, of_k in zip(settings.inputs, x.q_inputs, x.k_inputs, strict=True)
        }
        kept = keep(settings.predicate, q, k, values)
        if settings.gaps:
            kept = kept & (k >= 0 if settings.reordered else k < settings.tokens)
    if settings.lengths:
        kept = kept & (k < _number(x.scalars[batch, 1], frame))
    away = abs(q - k).wide((0, 1)).astype(jnp.float32) if settings.slopes else None
    return kept.wide((0, 1)) if isinstance(kept, Lanes) else None, away


def _number(value: Any, frame: Frame) -> Lanes:
    return Lanes(value, (), frame)


def forward(
    settings: Settings, shape: Shape, x: Indices, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Normalised output [B, places, N, Hv] in q's dtype and log-sum-exp float32 [B, N, rows · tile] of q [B,
    places, N, H] over k, v [B, places, K, ·]."""
    pl, plgpu = pallas()

    batch, places, heads, head_dim = q.shape
    per_kv, v_dim, dtype = heads // k.shape[2], v.shape[3], q.dtype
    rows = x.rows.shape[1]
    block, stages, groups = shape.block, shape.stages, shape.groups
    per_query = plgpu.Layout.WGMMA.reduce(1)

    def body(
        x: Indices, q_ref: Any, k_ref: Any, v_ref: Any, out_ref: Any, lse_ref: Any, q_s: Any, lse_s: Any,
        q_ready: Any, keys: Ring, values: Ring, turn: Any,
    ) -> None:  # fmt: skip
        row, head = row_of(x), lax.axis_index("head")
        b, count = row.batch, row.count
        (k_s,), (v_s,) = keys.buffers, values.buffers

        def take_turn() -> None:
            if groups > 1:
                plgpu.barrier_arrive(turn)
                plgpu.barrier_wait(turn)

        def compute(group: Any) -> None:
            base = row.tile * shape.tile + group * GROUP
            q_mine, lse_mine = q_s.at[group], lse_s.at[group]
            plgpu.copy_gmem_to_smem(q_ref.at[b, pl.ds(base, GROUP), head], q_mine, q_ready.at[group])
            plgpu.barrier_wait(q_ready.at[group])
            top = plgpu.layout_cast(jnp.full((GROUP,), LEAST, jnp.float32), per_query)
            total = plgpu.layout_cast(jnp.zeros((GROUP,), jnp.float32), per_query)
            acc = plgpu.layout_cast(jnp.zeros((GROUP, v_dim), jnp.float32), plgpu.Layout.WGMMA)

            @pl.when(count > 0)
            def first_keys() -> None:
                plgpu.barrier_wait(keys.ready.at[0])

            pl.when(group == 1)(take_turn)

            def step(j: Any, carry: Any, apply: bool) -> Any:
                acc, top, total = carry
                slot = lax.rem(j, jnp.int32(stages))

                def scores(ref: Any) -> Any:
                    plgpu.wgmma(ref, q_mine, k_s.at[slot].transpose((1, 0)))
                    take_turn()
                    return ref[...]

                s = pl.run_scoped(scores, plgpu.ACC((GROUP, block), jnp.float32))
                plgpu.barrier_arrive(keys.free.at[slot])
                s, factor = logits_of(settings, s)
                if apply or settings.lengths or settings.slopes:
                    first_k = x.blocks[row.table, row.first + j] * block
                    mask, away = pairs_of(settings, x, b, base, first_k, (GROUP, block), apply=apply)
                    if away is not None:
                        s, factor = s * factor - away * (x.slopes[head] * LOG2E), 1.0
                    if mask is not None:
                        s = jnp.where(mask, s, -jnp.inf)
                new_top = jnp.maximum(top, s.max(axis=1) * factor)
                shrink = jnp.exp2(top - new_top)
                p = jnp.exp2(s * factor - lax.broadcast_in_dim(new_top, s.shape, [0]))
                acc *= lax.broadcast_in_dim(shrink, acc.shape, [0])
                total = total * shrink + p.sum(axis=1)
                low = p.astype(dtype)
                barrier: Callable[[Any], Any] = lax.optimization_barrier
                acc, total, new_top, low = barrier((acc, total, new_top, low))
                if groups > 1:
                    plgpu.barrier_arrive(turn)
                plgpu.barrier_wait(values.ready.at[slot])
                if groups > 1:
                    plgpu.barrier_wait(turn)

                def add(ref: Any) -> None:
                    plgpu.wgmma(ref, low, v_s.at[slot])
                    following = j + 1

                    @pl.when(following < count)
                    def next_keys() -> None:
                        plgpu.barrier_wait(keys.ready.at[lax.rem(following, jnp.int32(stages))])

                acc = pl.run_state(add)(plgpu.ACC.init(acc))
                plgpu.barrier_arrive(values.free.at[slot])
                return acc, new_top, total

            carry = acc, top, total
            carry = lax.fori_loop(0, row.whole, lambda j, c: step(j, c, False), carry)
            acc, top, total = lax.fori_loop(row.whole, count, lambda j, c: step(j, c, True), carry)
            pl.when(group == 0)(take_turn)
            some = total > 0.0
            safe = jnp.where(some, total, 1.0)
            acc = acc * lax.broadcast_in_dim(1.0 / safe, acc.shape, [0])
            q_mine[...] = acc.astype(dtype)
            lse_mine[...] = jnp.where(some, top * (1 / LOG2E) + jnp.log(safe), -jnp.inf)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(q_mine, out_ref.at[b, pl.ds(base, GROUP), head])
            plgpu.copy_smem_to_gmem(lse_mine, lse_ref.at[b, head, pl.ds(base, GROUP)])
            plgpu.wait_smem_to_gmem(0)

        def copy() -> None:
            kv_head = lax.div(head, jnp.int32(per_kv))

            def sources(j: Any) -> tuple[tuple[Any], tuple[Any]]:
                at = b, pl.ds(x.blocks[row.table, row.first + j] * block, block), kv_head
                return (k_ref.at[at],), (v_ref.at[at],)

            fill(shape, count, (keys, values), sources)

        split(groups, compute, copy, 232 if groups == 2 else 160)

    scratch = (
        swizzled((groups, GROUP, head_dim), dtype),
        plgpu.SMEM((groups, GROUP), jnp.float32),
        plgpu.Barrier(num_barriers=groups),
        ring(shape, swizzled((stages, block, head_dim), dtype)),
        ring(shape, swizzled((stages, block, v_dim), dtype)),
        plgpu.Barrier(num_arrivals=groups),
    )
    out = (
        shaped((batch, places, heads, v_dim), dtype),
        shaped((batch, heads, rows * shape.tile), jnp.float32),
    )
    made, lse = launch(body, (x, q, k, v), out, scratch, (heads, rows, batch), groups + 1)
    return made, lse
