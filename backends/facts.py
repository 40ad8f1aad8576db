"""Facts about q and k: what patterns that are chosen from the data read of a call, computed once for it.

All backends, the reference among them, get their facts here, so that they agree on every choice.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patterndsl.backends import Operands
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Fact, Node, Pattern, Pool
from patterndsl.ir.normal import postorder
from patterndsl.spec import of_kind

AT_ONCE = 2**20
"""Numbers that are made at a time where queries meet keys: so few stay near the processor, in memory
that is used over and over."""
MOST_IN_KERNEL = 512
"""Of so many the kernel keeps the best in order."""


class FactArray(NamedTuple):
    """``values`` integers [B | 1, N | 1, d1] or [B | 1, N | 1, d1, d2]; ``first``: the index at which the
    first of these axes begins, an int32 scalar where it is known at run time only."""

    values: jax.Array
    first: Any = 0


@dataclasses.dataclass(frozen=True)
class Data:
    """What a choice may look at: ``q`` [B, T, K, G, H] for K key heads with G query heads each; ``k``
    [B, n, K, H], 0 where a key does not exist; ``scale``: what q·k is multiplied by (1 where the call's is an
    array: q has been multiplied by it); ``centroids`` [k, H] or [N, k, H] each. All in float32 (float64 for
    float64 operands), and no gradient flows through them. ``q_offset``: the position of the first query, a
    number or an int32 scalar; ``lengths`` int32 [B | 1]: how many keys exist; ``inputs``: int32 [B | 1, n]
    each. ``kernel``: the suffix of the native kernel's custom calls, where these are to find what is largest:
    the same, but sooner.
    """

    q: jax.Array
    k: jax.Array
    q_offset: Any
    lengths: jax.Array
    inputs: Mapping[str, jax.Array]
    scale: float
    centroids: Mapping[str, jax.Array]
    kernel: str = ""

    @classmethod
    def of(cls, x: Operands, kernel: str = "") -> Data:
        """The data of a call."""
        dtype = jnp.promote_types(x.q.dtype, jnp.float32)
        n, groups = x.k.shape[1], x.k.shape[2]
        q = lax.stop_gradient(x.q).astype(dtype)
        q = q.reshape(*q.shape[:2], groups, q.shape[2] // groups, q.shape[3])
        k = lax.stop_gradient(x.k).astype(dtype)
        lengths = jnp.full(1, n, jnp.int32)
        if x.kv_lengths is not None:
            lengths = jnp.clip(x.kv_lengths, 0, n)
            k = jnp.where((jnp.arange(n) < lengths[:, None])[..., None, None], k, 0)
        centroids = {name: lax.stop_gradient(c).astype(dtype) for name, c in x.centroids.items()}
        return cls(q, k, x.q_offset, lengths, x.inputs, x.scale, centroids, kernel)

    @property
    def n(self) -> int:
        """The number of keys, those that do not exist too."""
        return self.k.shape[1]

    @property
    def n_q(self) -> int:
        """The number of queries."""
        return self.q.shape[1]

    @property
    def per_query(self) -> int:
        """How many numbers there are for each query and key (1 for a batch of unknown size)."""
        batch, _, groups, per_group, _ = self.q.shape
        return groups * per_group * (batch if isinstance(batch, int) else 1)


Facts = Mapping[Fact, FactArray]


def facts_of(nodes: Iterable[Node], x: Operands, kernel: str = "") -> Facts:
    """The facts that patterns bound at n read of a call. ``kernel``: see `Data`."""
    own = (p for p in postorder(*nodes) if isinstance(p, Pattern))
    patterns = tuple(p for p in own if type(p).facts is not Pattern.facts)
    if not patterns:
        return {}
    arrays = {"q": x.q, "k": x.k, "kv_lengths": x.kv_lengths, "inputs": dict(x.inputs)}
    arrays["centroids"] = dict(x.centroids)
    known = isinstance(x.q_offset, int)
    if not known:
        arrays["q_offset"] = x.q_offset
    made = _made(patterns, x.scale, x.q_offset if known else None, kernel, arrays)
    return {
        Fact(p, name): array for p, its in zip(patterns, made, strict=True) for name, array in its.items()
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _made(
    patterns: tuple[Pattern, ...], scale: float, q_offset: int | None, kernel: str, arrays: dict[str, Any]
) -> list[dict[str, FactArray]]:
    arrays = {"q_offset": q_offset, **arrays}
    data = Data.of(Operands(v=arrays["k"], scale=scale, **arrays), kernel)
    return [dict(p.facts(data)) for p in patterns]


def dense_of(
    node: Node,
    operands: tuple[Any, Any],
    positions: Any,
    head: int,
    kinds: Mapping[str, str],
    inputs: Mapping[str, Any],
) -> dict[Pool, Any]:
    """The dense meaning (`ir.dense`) of one query head's pattern, for q [T, N, H] and k [n, K, H], and
    run-time inputs of these ``kinds``."""
    from patterndsl.backends.calling import bad, prepare

    q, k = operands
    centroids = of_kind("centroids", kinds, inputs)
    known = dict.fromkeys(centroids, "centroids")
    x = prepare(known, q, k, k, q_offset=int(positions[0]), inputs=centroids).operands
    n, n_q = x.k.shape[1], x.q.shape[1]
    if x.q.shape[0] != 1 or n_q != len(positions) or head >= x.q.shape[2]:
        wanted = f"q [{len(positions)}, N, H] and k [n, K, H], with more than {head} query heads"
        raise bad("operands", f"{wanted} are needed, not q {list(q.shape)} and k {list(k.shape)}")
    labels = of_kind("token", kinds, inputs)
    rows = {name: jnp.asarray(value, jnp.int32)[None] for name, value in labels.items()}
    data: dict[Any, Any] = {name: value[:, None] for name, value in rows.items()}
    for fact, array in facts_of([node], dataclasses.replace(x, inputs=rows)).items():
        data[fact] = of_heads(array, (head,))
    counts = dense(node, jnp.asarray(positions), n, data, jnp)
    return {pool: np.asarray(c).reshape(c.shape[-2:]) for pool, c in counts.items()}


def of_heads(x: FactArray, heads: tuple[int, ...]) -> FactArray:
    """What some query heads read of a fact."""
    return x if x.values.shape[1] == 1 else x._replace(values=x.values[:, np.asarray(heads)])


def dot(a: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`einsum`, in full precision: near ties must fall alike on every device. Where operands share
    axes, XLA need not transpose the result if the operand with its last axes is the first."""
    return jnp.einsum(a, x, y, precision="highest")


def by_slices(rows: int, each: int, make: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """``make(indices)`` of 0 … ``rows`` − 1, some at a time: it takes int32 [t] and returns [B, heads, t, …],
    and makes ``each`` numbers for one index on the way. Returns [B, heads, rows, …]."""
    size = max(1, min(rows, AT_ONCE // max(each, 1)))
    turns = math.ceil(rows / size)
    if turns == 1:
        return make(jnp.arange(rows, dtype=jnp.int32))
    size = math.ceil(rows / turns)
    index = np.minimum(np.arange(turns * size), rows - 1).astype(np.int32).reshape(turns, size)
    parts = jnp.moveaxis(lax.map(make, jnp.asarray(index)), 0, 2)
    whole = parts.reshape(*parts.shape[:2], turns * size, *parts.shape[4:])
    return whole[:, :, :rows]


def largest(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Which of the last axis have the ``count`` largest scores, int32, best first, and their scores. Of equal
    scores the first comes first. There is no NaN among them (`numbers`)."""
    best, index = lax.top_k(jnp.where(scores == 0, 0.0, scores), count)  # −0 and 0 are equal
    return index, best


def best(scores: jax.Array, allowed: jax.Array, count: int, kernel: str = "") -> jax.Array:
    """Which of the last axis of scores [B, heads, rows, columns] have the ``count`` largest of those that are
    ``allowed``, bool [B | 1, rows | 1, columns]: int32 as in `largest`, and −1 where there are no more."""
    if kernel and scores.dtype == jnp.float32 and count <= MOST_IN_KERNEL:
        shape = (*scores.shape[:-1], count)
        return _in_kernel("largest", kernel, shape, scores, allowed)
    may = jnp.where(allowed[:, None], numbers(scores), -jnp.inf)
    index, found = largest(may, count)
    return jnp.where(found > -jnp.inf, index, -1)


def largest_of_both_signs(x: jax.Array, kernel: str = "") -> jax.Array:
    """The place of the largest number of [x, −x] of the last axis of x, int32; that of the first of equals,
    and 0 where all are NaN."""
    if kernel and x.dtype == jnp.float32:
        return _in_kernel("signs", kernel, x.shape[:-1], x)
    both = jnp.concatenate([x, -x], axis=-1)
    return jnp.argmax(jnp.where(jnp.isnan(both), -jnp.inf, both), axis=-1).astype(jnp.int32)


def _in_kernel(name: str, kernel: str, shape: tuple[int, ...], *operands: jax.Array) -> jax.Array:
    """An int32 result of the native kernel."""
    result = jax.eval_shape(lambda: jnp.zeros(shape, jnp.int32))
    call: Callable[..., Any] = jax.ffi.ffi_call(
        f"patterndsl_{name}_{kernel}", result, vmap_method="sequential"
    )
    found: jax.Array = call(*operands)
    return found


def numbers(scores: jax.Array) -> jax.Array:
    """Scores as finite numbers, NaN as the smallest, so that −inf can stand for what may not be chosen."""
    ends: Any = jnp.finfo(scores.dtype)  # type: ignore[no-untyped-call]
    return jnp.clip(jnp.where(jnp.isnan(scores), ends.min, scores), ends.min, ends.max)
