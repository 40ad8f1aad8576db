"""Summaries: keys, values and bias of a pool's chunks, made of the tokens by plain differentiable JAX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Unsupported
from patterndsl.backends.xla.logits import accumulator
from patterndsl.backends.xla.order import pad
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS

REDUCES = ("mean", "max", "first", "last")


def summarize(x: jax.Array, pools: Iterable[Pool], kv_lengths: jax.Array | None) -> dict[Pool, jax.Array]:
    """Keys or values [B, S, K, H] of the tokens → for each pool those of the chunks, [B, C, K, H]; 0 for
    empty chunks."""
    made = _means(x, {p for pool in pools for p in _chain(pool)}, kv_lengths)

    def make(pool: Pool) -> jax.Array:
        if pool not in made:
            below, own, lengths = x, pool, kv_lengths
            if pool.of is not None:  # the chunks below are to it what tokens are to a chunk of ``fan`` tokens
                below, own = make(pool.of), Pool(pool.fan, pool.fan, pool.reduce)
                lengths = None if kv_lengths is None else -(-kv_lengths // pool.of.stride)
            made[pool] = _summarize(below, own, lengths)
        return made[pool]

    return {pool: make(pool).astype(x.dtype) for pool in pools}


def refused(pool: Pool, n: int) -> Unsupported | None:
    """Why the summaries of a pool cannot be made, None where they can."""
    for reduce in (p.reduce for p in _chain(pool)):
        if not callable(reduce) and reduce not in REDUCES:
            advice = f"use one of {', '.join(REDUCES)}, or a function"
            return Unsupported(f"no such reduce of summaries: {reduce!r}", advice)
    if not pool.nests(n):
        reason = f"chunks of {pool.size} tokens are not made of whole chunks of the level below"
        return Unsupported(reason, "let each level's chunks be a multiple of those below, side by side")
    return None


def _chain(pool: Pool) -> Iterator[Pool]:
    """The pool, the one that it is made of, and so on."""
    yield pool
    if pool.of is not None:
        yield from _chain(pool.of)


def _means(x: jax.Array, pools: Iterable[Pool], kv_lengths: jax.Array | None) -> dict[Pool, jax.Array]:
    """Of those that pool tokens that lie side by side, the means: not rounded yet, as others are made of
    them."""
    made: dict[Pool, jax.Array] = {}
    means = [p for p in pools if p.reduce == "mean" and p.size == p.stride and p.of is None]
    tokens = x.astype(accumulator(x.dtype))
    if kv_lengths is not None:
        tokens = jnp.where((jnp.arange(x.shape[1]) < kv_lengths[:, None])[..., None, None], tokens, 0)
    sums: list[tuple[int, jax.Array]] = [(1, tokens)]
    for pool in sorted(means, key=lambda pool: pool.size):
        # Summed from the largest chunks that it consists of, so that a pyramid reads the tokens once.
        size, finer = next((s, total) for s, total in reversed(sums) if pool.size % s == 0)
        if size != pool.size:
            finer = jnp.sum(_windows(finer, pool.size // size, pool.size // size, 1), axis=2)
            sums.append((pool.size, finer))
        real = jnp.maximum(_real(pool, x.shape[1], kv_lengths), 1)[..., None, None]
        made[pool] = finer / real
    return made


def _summarize(x: jax.Array, pool: Pool, kv_lengths: jax.Array | None) -> jax.Array:
    """One pool's keys or values, made of the tokens."""
    if pool is TOKENS:
        return x
    n, chunks = x.shape[1], pool.chunks(x.shape[1])
    real = _real(pool, n, kv_lengths)
    if pool.reduce == "first":
        return jnp.where((real > 0)[..., None, None], x[:, :: pool.stride], 0)
    if pool.reduce == "last":
        last = jnp.maximum(jnp.arange(chunks) * pool.stride + real - 1, 0)
        picked = jnp.take_along_axis(x, jnp.broadcast_to(last, (x.shape[0], chunks))[..., None, None], axis=1)
        return jnp.where((real > 0)[..., None, None], picked, 0)
    tokens = _windows(x, pool.size, pool.stride, 1)
    mask = jnp.arange(pool.size) < real[..., None]
    wide = mask[..., None, None] if mask.ndim == 3 else mask[None, ..., None, None]
    if pool.reduce == "mean":
        total = jnp.sum(jnp.where(wide, tokens, 0), axis=2, dtype=accumulator(x.dtype))
        return (total / jnp.maximum(real, 1)[..., None, None]).astype(x.dtype)
    some = (real > 0)[..., None, None]
    if pool.reduce == "max":
        # Chunks without real tokens see zeros: a maximum over nothing would be −inf, and its gradient NaN.
        return jnp.max(jnp.where(wide, tokens, jnp.where(some[..., None, :, :], -jnp.inf, 0)), axis=2)
    assert callable(pool.reduce)
    # The same care for a callable, which never sees an empty chunk; its mask is [B | 1, chunks, size].
    seen = (mask | (real == 0)[..., None]).reshape(-1, chunks, pool.size)
    reduced = pool.reduce(jnp.where(wide, tokens, 0), seen)
    expected = (x.shape[0], chunks, *x.shape[2:])
    if reduced.shape != expected:
        raise ValueError(
            f"`reduce` must return [B, chunks, K, H], here {expected}; it returned {reduced.shape}"
        )
    return jnp.where(some, reduced, 0).astype(x.dtype)


def summarize_bias(bias: jax.Array, pool: Pool, kv_lengths: jax.Array | None) -> jax.Array:
    """The bias [B | 1, N | 1, T, S] on tokens → its mean over each chunk's real tokens, [B | 1, N | 1, T,
    C]."""
    if pool is TOKENS:
        return bias
    real = _real(pool, bias.shape[-1], kv_lengths)
    mask = jnp.arange(pool.size) < real[..., None]
    if kv_lengths is not None:
        mask, real = mask[:, None, None], real[:, None, None]
    total = jnp.sum(
        jnp.where(mask, _windows(bias, pool.size, pool.stride, 3), 0), axis=-1, dtype=accumulator(bias.dtype)
    )
    return (total / jnp.maximum(real, 1)).astype(bias.dtype)


def _real(pool: Pool, n: int, kv_lengths: jax.Array | None) -> jax.Array:
    """How many real tokens each chunk has: [C] or, with lengths, [B, C]."""
    first = np.arange(pool.chunks(n), dtype=np.int32) * pool.stride
    if kv_lengths is None:
        return jnp.asarray(np.clip(n - first, 0, pool.size))
    return jnp.clip(jnp.minimum(kv_lengths, n)[:, None] - first, 0, pool.size)


def _windows(x: jax.Array, size: int, stride: int, axis: int) -> jax.Array:
    """The elements of each chunk: the axis becomes [chunks, size]. Past the end stands 0 where chunks do not
    overlap, else whatever is at hand."""
    n = x.shape[axis]
    chunks = -(-n // stride)
    if size == stride:
        whole = pad(x, chunks * size, axis)
        return whole.reshape(*x.shape[:axis], chunks, size, *x.shape[axis + 1 :])
    index = np.arange(chunks)[:, None] * stride + np.arange(size)
    return jnp.take(x, np.minimum(index, n - 1), axis=axis)
