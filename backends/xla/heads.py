"""Heads: which key heads a group of query heads needs, and the layouts of its arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends.facts import FactArray


@dataclasses.dataclass(frozen=True)
class HeadPacking:
    """A group of query heads over the key heads that it reads, each key head with as many query heads.

    ``heads``: the query heads, in the order in which they are packed; ``kv_heads``: the key heads that they
    read, all different where every one serves ``per_kv`` of the group, else one for each query head.
    """

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    num_heads: int
    num_kv_heads: int

    @property
    def per_kv(self) -> int:
        """Query heads of each key head."""
        return len(self.heads) // len(self.kv_heads)

    def tiles(self, q: jax.Array, block_q: int) -> jax.Array:
        """[B, tiles·block_q, N, H] → [tiles, B, K, G·block_q, H]."""
        q = pick(q, self.heads, 2)
        batch, length, _, head_dim = q.shape
        tiles = length // block_q
        q = q.reshape(batch, tiles, block_q, len(self.kv_heads), self.per_kv, head_dim).transpose(
            1, 0, 3, 4, 2, 5
        )
        return q.reshape(tiles, batch, len(self.kv_heads), self.per_kv * block_q, head_dim)

    def rows(self, x: jax.Array, block_q: int) -> jax.Array:
        """[tiles, B, K, G·block_q, H] → [B, tiles·block_q, heads, H]."""
        tiles, batch, _, _, head_dim = x.shape
        x = x.reshape(tiles, batch, len(self.kv_heads), self.per_kv, block_q, head_dim).transpose(
            1, 0, 4, 2, 3, 5
        )
        return x.reshape(batch, tiles * block_q, len(self.heads), head_dim)

    def keys(self, x: jax.Array) -> jax.Array:
        """Keys or values [B, S, all key heads, H] → [B, K, S, H]."""
        return pick(x, self.kv_heads, 2).transpose(0, 2, 1, 3)

    def bias(self, x: jax.Array) -> jax.Array:
        """[B | 1, N | 1, T, S] → [B | 1, K | 1, G | 1, T, S]."""
        if x.shape[1] == 1:
            return x[:, :, None]
        x = pick(x, self.heads, 1)
        return x.reshape(x.shape[0], len(self.kv_heads), self.per_kv, *x.shape[2:])

    def fact(self, x: FactArray) -> FactArray:
        """Values [B | 1, N | 1, …] → [B | 1, K | 1, G | 1, …]."""
        values = x.values
        if values.shape[1] == 1:
            return x._replace(values=values[:, :, None])
        values = pick(values, self.heads, 1)
        shape = (values.shape[0], len(self.kv_heads), self.per_kv, *values.shape[2:])
        return x._replace(values=values.reshape(shape))

    def slopes(self, x: jax.Array) -> jax.Array:
        """[N] → [K, G]."""
        return pick(x, self.heads, 0).reshape(len(self.kv_heads), self.per_kv)


def pack_heads(heads: tuple[int, ...], num_heads: int, num_kv_heads: int) -> HeadPacking:
    """The packing of a group of query heads, where consecutive query heads share a key head."""
    size = num_heads // num_kv_heads
    served = [h // size for h in heads]
    distinct = sorted(set(served))
    even = len({served.count(kv) for kv in distinct}) == 1
    return HeadPacking(tuple(heads), tuple(distinct if even else served), num_heads, num_kv_heads)


def pick(x: jax.Array, index: tuple[int, ...], axis: int) -> jax.Array:
    """Some elements of an axis, by a slice where they are consecutive."""
    if index == tuple(range(index[0], index[0] + len(index))):
        whole = index[0] == 0 and len(index) == x.shape[axis]
        return x if whole else jax.lax.slice_in_dim(x, index[0], index[0] + len(index), axis=axis)
    return jnp.take(x, np.asarray(index), axis=axis)


def join(parts: list[jax.Array], order: np.ndarray[Any, Any]) -> jax.Array:
    """Groups of heads put together along the head axis, in the order of the heads."""
    whole = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=2)
    return whole if (order == np.arange(len(order))).all() else jnp.take(whole, order, axis=2)
