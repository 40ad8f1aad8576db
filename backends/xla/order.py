"""Orders of an axis: operands put in the order in which a part sees them, and results put back."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

Int32 = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """``index`` int32 [places]: which of the ``size`` elements of an axis is at each place, each at one place
    at most; −1 where a place is empty."""

    index: Int32
    size: int

    @functools.cached_property
    def inverse(self) -> Int32:
        """The place of each element, int32 [size]; −1 where it has none."""
        places = np.full(self.size, -1, np.int32)
        real = np.flatnonzero(self.index >= 0)
        places[self.index[real]] = real
        return places

    @functools.cached_property
    def run(self) -> tuple[int, int] | None:
        """The first element and their number, where the places hold consecutive elements and then nothing."""
        count = int((self.index >= 0).sum())
        first = int(self.index[0]) if count else 0
        alike = (self.index[:count] == first + np.arange(count)).all()
        return (first, count) if alike else None

    @property
    def whole(self) -> bool:
        """Whether the elements are as they come, all of them."""
        return self.run == (0, self.size)

    @functools.cached_property
    def gaps(self) -> bool:
        """Whether some place is empty."""
        return bool((self.index < 0).any())

    def take(self, x: jax.Array, axis: int) -> jax.Array:
        """The elements of an axis at their places, 0 at empty ones."""
        if self.run is None:
            return _gather(x, self.index, self.inverse, axis)
        first, count = self.run
        if (first, count) != (0, self.size):
            x = lax.slice_in_dim(x, first, first + count, axis=axis % x.ndim)
        return pad(x, len(self.index), axis)

    def put(self, x: jax.Array, axis: int) -> jax.Array:
        """The inverse of `take`: places → elements, 0 where they have no place."""
        if self.whole:
            return lax.slice_in_dim(x, 0, self.size, axis=axis % x.ndim)
        return _gather(x, self.inverse, self.index, axis)


def pad(x: jax.Array, size: int, axis: int) -> jax.Array:
    """``x`` with zeros after its end along an axis, up to ``size``."""
    missing = size - x.shape[axis]
    if missing <= 0:
        return x
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, missing)
    return jnp.pad(x, padding)


def _gather(x: jax.Array, index: Int32, inverse: Int32, axis: int) -> jax.Array:
    """``x[index]`` along an axis, 0 where the index is −1. Its gradient is the gather by ``inverse``: a
    scatter, which the transpose of a gather is in general, would be several times slower."""

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        # A negative index counts from the end, one past it fills.
        safe = np.where(index < 0, x.shape[axis], index)
        if (index < 0).any():
            return jnp.take(x, safe, axis=axis, mode="fill", fill_value=0)
        return jnp.take(x, safe, axis=axis, mode="clip")

    def save(x: jax.Array) -> tuple[jax.Array, None]:
        return gather(x), None

    def pull(_: None, d: jax.Array) -> tuple[jax.Array]:
        return (_gather(d, inverse, index, axis),)

    gather.defvjp(save, pull)
    result: jax.Array = gather(x)
    return result


Result = tuple[jax.Array, jax.Array]
"""Normalised output [B, T, heads, Hv] and log-sum-exp [B, T, heads]; 0 and −inf where nothing is kept."""


def merge(parts: list[tuple[Order, Result]]) -> Result:
    """One softmax of disjoint parts, each over the queries of its order.

    Parts of few queries are merged into the others where those queries are, so that they cost little.
    """
    parts = sorted(parts, key=lambda part: -len(part[0].index))
    wide = [(order, result) for order, result in parts if 2 * len(order.index) > order.size]
    if len(parts) == 1:
        wide = parts
    narrow = parts[len(wide) :]
    if wide:
        total = functools.reduce(_merge, [_put(order, result) for order, result in wide])
    else:
        (order, (out, lse)), *_ = parts
        shape = (lse.shape[0], order.size, lse.shape[2])
        total = jnp.zeros((*shape, out.shape[-1]), out.dtype), jnp.full(shape, -jnp.inf, lse.dtype)
    for order, result in narrow:
        real = Order(order.index[order.index >= 0], order.size)
        seen = Order(np.flatnonzero(order.index >= 0).astype(np.int32), len(order.index))
        old = tuple(real.take(x, 1) for x in total)
        new = _merge((old[0], old[1]), (seen.take(result[0], 1), seen.take(result[1], 1)))
        total = _set(total[0], real, new[0]), _set(total[1], real, new[1])
    return total


def _put(order: Order, result: Result) -> Result:
    out, lse = (order.put(x, 1) for x in result)
    missing = order.inverse < 0
    return out, jnp.where(missing[None, :, None], -jnp.inf, lse) if missing.any() else lse


def _set(x: jax.Array, order: Order, new: jax.Array) -> jax.Array:
    """``x`` with the elements of an order (without gaps) replaced, along axis 1."""
    if order.run is not None:
        replaced: jax.Array = lax.dynamic_update_slice_in_dim(x, new, order.run[0], 1)
        return replaced
    return x.at[:, order.index].set(new, unique_indices=True, mode="promise_in_bounds")


def _merge(a: Result, b: Result) -> Result:
    """Two disjoint parts of one softmax. Without gradients that are 0 · ∞ where both keep nothing."""
    top = lax.stop_gradient(jnp.maximum(a[1], b[1]))
    safe = jnp.where(top == -jnp.inf, 0.0, top)
    of_a, of_b = jnp.exp(a[1] - safe), jnp.exp(b[1] - safe)
    some = jnp.where(top == -jnp.inf, 1.0, of_a + of_b)
    out = (a[0] * (of_a / some)[..., None]) + (b[0] * (of_b / some)[..., None])
    return out, jnp.where(top == -jnp.inf, -jnp.inf, safe + jnp.log(some))
