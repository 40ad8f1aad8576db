"""Lanes: a query head of one sequence, for loops that go over them one by one.

Arrays have the axes [B | 1, K | 1, G | 1, …] (sequences, key heads, query heads of each), 1 where lanes share
what is there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


class Lane(NamedTuple):
    """One lane: its ``number`` among all, and its place on the three axes."""

    number: jax.Array
    batch: jax.Array
    kv_head: jax.Array
    member: jax.Array

    @classmethod
    def of(cls, number: jax.Array, sizes: tuple[Any, ...]) -> Lane:
        """The lane of that number. ``sizes``: of B, K and G."""
        _, kv_heads, members = sizes
        head = number // members
        return cls(number, head // kv_heads, head % kv_heads, number % members)

    def within(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Its indices into the axes of an array, 0 where lanes share it."""
        zero = jnp.zeros_like(self.number)
        places = (self.batch, self.kv_head, self.member)
        return tuple(zero if _one(size) else at for at, size in zip(places, x.shape, strict=False))

    def read(self, x: jax.Array) -> jax.Array:
        """Its number, of an array without further axes."""
        return x[self.within(x)]

    def rows(self, x: jax.Array, first: jax.Array, size: int) -> jax.Array:
        """``size`` rows of [..., rows, H], from ``first`` on."""
        zero = jnp.zeros_like(self.number)
        part = lax.dynamic_slice(x, (*self.within(x), first, zero), (1, 1, 1, size, x.shape[-1]))
        return part.reshape(size, x.shape[-1])

    def add(self, x: jax.Array, first: jax.Array, new: jax.Array) -> jax.Array:
        """``x`` with ``new`` [rows, H] added to its rows from ``first`` on."""
        at = (*self.within(x), first, jnp.zeros_like(self.number))
        shape = (1, 1, 1, *new.shape)
        total = lax.dynamic_slice(x, at, shape) + new.reshape(shape)
        return lax.dynamic_update_slice(x, total, at)

    def reader(self, x: jax.Array, first: jax.Array) -> Callable[..., jax.Array]:
        """A function of indices into the further axes of ``x``, of which the first begins at ``first``; each
        is moved to the ends of its axis."""

        def read(*indices: Any) -> jax.Array:
            moved = [jnp.asarray(indices[0]) - first, *indices[1:]]
            ends = x.shape[3:]
            at = [jnp.clip(i, 0, size - 1) for i, size in zip(moved, ends, strict=True)]
            return x[(*self.within(x), *at)]

        return read


def _one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def fold(f: Callable[..., Any], alike: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of trees of arrays, each with an axis of sequences in front (1 where they share it), whose
    results have that axis; under `vmap` what is mapped over becomes more sequences, so that loops over lanes
    stay loops, not loops of all lanes at once. ``alike(*args)``: for each result the argument that has as
    many sequences. Derivatives are those of ``f``."""
    whole = custom_vmap(f)

    @whole.def_vmap
    def rule(size: int, mapped: Any, *args: Any) -> tuple[Any, Any]:
        flat, tree = jax.tree.flatten(args)
        which = jax.tree.leaves(mapped)
        own = [x.shape[int(m)] for x, m in zip(flat, which, strict=True)]
        batch = max(own, default=1)

        def folded(x: jax.Array, m: bool) -> jax.Array:
            if not m and x.shape[0] == 1 and not jnp.issubdtype(x.dtype, jnp.floating):
                return x  # of floats each that is mapped over may want its own gradient
            wide = x if m else jnp.broadcast_to(x, (size, *x.shape))
            wide = jnp.broadcast_to(wide, (size, batch, *wide.shape[2:]))
            return wide.reshape(size * batch, *wide.shape[2:])

        def unfolded(x: jax.Array, sequences: Any) -> jax.Array:
            x = x.reshape(size, batch, *x.shape[1:])
            return jnp.sum(x, axis=1, keepdims=True) if _one(sequences) and not _one(batch) else x

        more = [folded(x, m) for x, m in zip(flat, which, strict=True)]
        result = fold(f, alike)(*jax.tree.unflatten(tree, more))
        sequences = alike(*jax.tree.unflatten(tree, own))
        return jax.tree.map(unfolded, result, sequences), jax.tree.map(lambda _: True, result)

    differentiable = jax.custom_jvp(whole)
    # The derivative of a `custom_vmap` asks that operands and tangents be mapped over alike.
    differentiable.defjvp(functools.partial(jax.jvp, f))
    return differentiable
