"""The logits of a row's queries over the slots that it reads: scores, softcap, ALiBi, bias, weights, mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patterndsl.backends.facts import FactArray
from patterndsl.backends.xla.tiles import Pass, Piece, Visit, read
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Fact
from patterndsl.ir.normal import slot_index
from patterndsl.plan.plan import Source


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed for a call, with ``n`` keys. ``facts``: what its patterns read of q and k."""

    n: int
    scale: float
    softcap: float | None
    facts: tuple[Fact, ...] = ()


class Runtime(NamedTuple):
    """Integers known at run time only, without gradients: ``kv_lengths`` int32 [B], ``inputs`` [B | 1, n]
    each, ``facts`` those of the `Settings`, [B | 1, N | 1, …] and in a part [B | 1, K | 1, G | 1, …]."""

    q_offset: jax.Array
    kv_lengths: jax.Array | None
    inputs: Mapping[str, jax.Array]
    facts: tuple[FactArray, ...] = ()


class Floats(NamedTuple):
    """The differentiable operands of a part, for K key heads with G query heads each.

    ``q`` [tiles, B, K, G·block_q, H]; ``k``, ``v`` [B, K, slots, H] and ``bias`` [B | 1, K | 1, G | 1, T,
    slots] for each pool of the part; ``slopes`` [K, G].
    """

    q: jax.Array
    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]
    bias: tuple[jax.Array, ...] | None
    slopes: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Axes:
    """Where queries and slots are in an array of pairs: [B, K, G, block_q, slots], or with the keys first
    [B, K, slots, G, block_q].

    Queries first suit the forward pass, which reduces over slots. Keys first suit the backward pass: none of
    its five products transposes an array of pairs.
    """

    keys_first: bool

    def queries(self, x: jax.Array) -> jax.Array:
        """[block_q], to meet pairs without heads."""
        return x[None, :] if self.keys_first else x[:, None]

    def slots(self, x: jax.Array) -> jax.Array:
        """[…, slots], to meet pairs without heads."""
        return x[..., :, None] if self.keys_first else x[..., None, :]

    def pairs(self, x: jax.Array) -> jax.Array:
        """Pairs without heads (or what broadcasts to them), with or without a batch axis, to meet pairs."""
        if x.ndim == 0:
            return x
        x = x.reshape((1,) * (3 - x.ndim) + x.shape)
        return x[:, None, :, None, :] if self.keys_first else x[:, None, None]

    def wide(self, x: jax.Array) -> jax.Array:
        """Pairs with heads, [B | 1, K | 1, G | 1, block_q, slots] (or what broadcasts to them), to meet
        pairs."""
        return self.from_bias(x.reshape((1,) * (5 - x.ndim) + x.shape))

    def slopes(self, x: jax.Array) -> jax.Array:
        """[K, G], to meet pairs."""
        return x[:, None, :, None] if self.keys_first else x[:, :, None, None]

    def from_bias(self, x: jax.Array) -> jax.Array:
        """[B, K, G, block_q, slots] as pairs."""
        return jnp.moveaxis(x, -1, 2) if self.keys_first else x

    def to_bias(self, x: jax.Array) -> jax.Array:
        """The inverse of `from_bias`."""
        return jnp.moveaxis(x, 2, -1) if self.keys_first else x

    def split(self, x: jax.Array, block_q: int) -> jax.Array:
        """Scores [B, K, G·block_q, slots], or keys first [B, K, slots, G·block_q], as pairs."""
        if self.keys_first:
            return x.reshape(*x.shape[:3], x.shape[3] // block_q, block_q)
        return x.reshape(*x.shape[:2], x.shape[2] // block_q, block_q, x.shape[3])


class Logits(NamedTuple):
    """``value`` of pairs, −inf where not kept; ``capped`` the soft-capped score (None without softcap);
    ``distance`` that of ALiBi, broadcastable to ``value``."""

    value: jax.Array
    capped: jax.Array | None
    distance: jax.Array | None


def accumulator(dtype: Any) -> Any:
    """The dtype of sums and of the softmax: float32, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def matmul(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Product of [B, K, …] by [B, K, …], contracted over one axis of each, summed in `accumulator`."""
    dtype = accumulator(a.dtype)
    numbers = (((over[0],), (over[1],)), ((0, 1), (0, 1)))
    return lax.dot_general(a, b, numbers, preferred_element_type=dtype)


def logits(
    settings: Settings,
    axes: Axes,
    part: Pass,
    source: Source,
    piece: Piece,
    at: Visit,
    x: Floats,
    run: Runtime,
    tile: jax.Array,
    q: jax.Array,
) -> Logits:
    """The logits of a tile's queries ``q`` [B, K, G·block_q, H] over the slots of one visit."""
    pool, block_q = part.pool(source), part.block_q
    keys = read(x.k[pool], at, -2)
    raw = (matmul(keys, q, (3, 3)) if axes.keys_first else matmul(q, keys, (3, 3))) * settings.scale
    value = axes.split(raw, block_q)
    capped = distance = None
    if settings.softcap is not None:
        value = capped = settings.softcap * jnp.tanh(value / settings.softcap)
    q_positions = axes.queries(_positions(part, run, tile))
    slots, exists = _slots(part, source, at)
    real = _real_tokens(source, slots, settings.n, run)
    slots, exists, real = (axes.slots(a) for a in (slots, exists, real))
    if x.slopes is not None:
        twice = 2 * (q_positions - slots * source.pool.stride)  # to the mean position of the real tokens
        distance = axes.pairs(jnp.abs(twice - (real - 1)) * 0.5).astype(value.dtype)
        value = value - axes.slopes(x.slopes) * distance
    if x.bias is not None:
        bias = lax.dynamic_slice_in_dim(x.bias[pool], tile * block_q, block_q, -2)
        value = value + axes.from_bias(read(bias, at, -1).astype(value.dtype))
    if source.pool.weight == "count" and source.pool.size > 1:
        value = value + axes.pairs(jnp.log(jnp.maximum(real, 1).astype(value.dtype)))
    mask = None if at.real is None else axes.slots(at.real)
    if run.kv_lengths is not None:
        mask = _both(mask, real > 0)
    if piece.partial:
        values = _Values(settings, axes, source, q_positions, slots, run)
        kept, headed = values.of(source.term.keep)
        if piece.beyond:
            mask = _both(mask, exists)
        if not headed:
            mask = _both(mask, kept)
        if source.term.count is not None:
            count, wide = values.of(source.term.count)
            weight = jnp.log(jnp.maximum(count, 1).astype(value.dtype))
            value = value + (weight if wide else axes.pairs(weight))
        if headed:
            value = jnp.where(kept, value, -jnp.inf)
    if mask is not None:
        mask = lax.optimization_barrier(jnp.asarray(mask))  # type: ignore[no-untyped-call]
        value = jnp.where(axes.pairs(mask), value, -jnp.inf)
    return Logits(value, capped, distance)


class _Values:
    """Predicates and counts over the pairs of a visit."""

    def __init__(
        self, settings: Settings, axes: Axes, source: Source, q: jax.Array, slots: jax.Array, run: Runtime
    ) -> None:
        self.axes, self.run, self.facts = axes, run, settings.facts
        self.env = {"q": q, str(slot_index(source.pool).value): slots}

    def of(self, e: Expr) -> tuple[jax.Array, bool]:
        """The value of ``e``, and whether it has axes of heads, as pairs have: only where it reads facts."""
        if not e.facts():
            return jnp.asarray(evaluate(e, self.env, self.run.inputs, jnp)), False
        env = self.env
        if self.axes.keys_first:  # facts are read queries first
            env = {name: jnp.swapaxes(x, -1, -2) for name, x in env.items()}
        data: dict[Any, Any] = {name: x[:, None, None] for name, x in self.run.inputs.items()}
        data |= dict(zip(self.facts, self.run.facts, strict=True))
        return self.axes.wide(jnp.asarray(evaluate(e, env, data, jnp))), True


def _positions(part: Pass, run: Runtime, tile: jax.Array) -> jax.Array:
    """The positions of a tile's queries; of empty places any."""
    first = tile * part.block_q
    if part.queries.run is not None:
        return run.q_offset + part.queries.run[0] + first + lax.iota(jnp.int32, part.block_q)
    order = jnp.asarray(part.queries.index)
    return run.q_offset + jnp.maximum(lax.dynamic_slice_in_dim(order, first, part.block_q), 0)


def _slots(part: Pass, source: Source, at: Visit) -> tuple[jax.Array, jax.Array]:
    """The position of each token read, or the number of each chunk, and whether there is one."""
    if not part.reordered(source):
        return at.slots, at.slots < source.slots
    extent = part.extents[part.pool(source)]
    order = np.pad(part.tokens.index, (0, extent - source.slots), constant_values=-1)
    tokens = read(jnp.asarray(order), at, 0)
    return jnp.maximum(tokens, 0), tokens >= 0


def _real_tokens(source: Source, slots: jax.Array, n: int, run: Runtime) -> jax.Array:
    """How many tokens each slot stands for: [slots] or, with lengths, [B, slots]."""
    first = slots * source.pool.stride
    if run.kv_lengths is None:
        return jnp.clip(n - first, 0, source.pool.size)
    return jnp.clip(jnp.minimum(run.kv_lengths, n)[:, None] - first, 0, source.pool.size)


def _both(a: Any, b: Any) -> Any:
    return b if a is None else a & b
