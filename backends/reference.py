"""The reference: dense attention that defines every backend's answer. Written for clarity, never for speed.

float32, or float64 for float64 operands. Memory is n_q × (n + summaries).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Kernel, Operands, Target, Unsupported
from patterndsl.backends.facts import Facts, facts_of, of_heads
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Fact, Mix, Node, Pool
from patterndsl.ir.normal import lift_mix

if TYPE_CHECKING:
    from patterndsl.plan.plan import Plan


class Reference:
    """The dense definition as a backend."""

    name = "reference"

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        return None

    def lower(self, plan: Plan, target: Target) -> Kernel:
        groups = tuple((g.heads, g.node) for g in plan.groups)
        return lambda operands: run(groups, operands)


BACKEND = Reference()
Groups = tuple[tuple[tuple[int, ...], Node], ...]
Branches = tuple[tuple[tuple[int, ...], tuple[Node, ...]], ...]
Pools = tuple[tuple[tuple[Pool, ...], ...], ...]
"""For each group and branch the sources of slots."""
ARRAYS = ("q", "k", "v", "alibi_slopes", "bias", "kv_lengths", "inputs")


def run(groups: Groups, x: Operands, facts: Facts | None = None) -> list[tuple[jax.Array, jax.Array]]:
    """Attention by groups of heads, each with its pattern (bound at n). See `backends.Kernel`. ``facts``:
    those of another call, where this one has some of its queries."""
    arrays = {name: getattr(x, name) for name in ARRAYS}
    branches = tuple((heads, _branches(node)) for heads, node in groups)
    if facts is None:
        facts = facts_of((node for _, node in groups), x)
    arrays["facts"] = list(facts.values())
    pools: Pools | None = None
    if isinstance(x.q_offset, int) and not x.inputs and not facts:
        # Counted here in NumPy, exactly, and passed as arrays: as constants they would be compiled anew for
        # each offset, which takes far longer than the attention itself.
        n, positions = x.k.shape[1], x.q_offset + np.arange(x.q.shape[1])
        counts = [[dense(node, positions, n) for node in nodes] for _, nodes in branches]
        pools = tuple(tuple(tuple(found) for found in group) for group in counts)
        arrays["counts"] = [[list(found.values()) for found in group] for group in counts]
    static = (branches, tuple(facts), pools, x.scale, x.softcap)
    found: list[tuple[jax.Array, jax.Array]] = _run(*static, x.q_offset, arrays)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    groups: Branches,
    facts: tuple[Fact, ...],
    pools: Pools | None,
    scale: float,
    softcap: float | None,
    q_offset: Any,
    arrays: dict[str, Any],
) -> list[tuple[jax.Array, jax.Array]]:
    """One compilation for each set of patterns and shapes, instead of one for each small operation."""
    arrays = dict(arrays)
    known = arrays.pop("counts", None)
    data: dict[Any, Any] = dict(arrays["inputs"])
    chosen = dict(zip(facts, arrays.pop("facts"), strict=True))
    if chosen:  # pairs then have an axis of heads
        data = {name: value[:, None] for name, value in data.items()}
    x = Operands(scale=scale, softcap=softcap, q_offset=q_offset, **arrays)
    positions = q_offset + jnp.arange(x.q.shape[1])
    per_group: list[list[tuple[jax.Array, jax.Array]]] = []
    for g, (heads, nodes) in enumerate(groups):
        per_group.append([])
        for b, node in enumerate(nodes):
            if pools is None:
                mine: dict[Any, Any] = {fact: of_heads(array, heads) for fact, array in chosen.items()}
                counts = dense(node, positions, x.k.shape[1], {**data, **mine}, jnp)
            else:
                counts = dict(zip(pools[g][b], known[g][b], strict=True))
            per_group[-1].append(_branch(np.asarray(heads), counts, positions, x))
    order = np.argsort([h for heads, _ in groups for h in heads])
    most = max(map(len, per_group))
    for found in per_group:  # a head with fewer branches has nothing in the others
        out, lse = found[0]
        found += [(jnp.zeros_like(out), jnp.full_like(lse, -jnp.inf))] * (most - len(found))
    branches = []
    for parts in zip(*per_group, strict=True):
        out = jnp.concatenate([o for o, _ in parts], axis=2)[:, :, order]
        lse = jnp.concatenate([s for _, s in parts], axis=2)[:, :, order]
        branches.append((out, lse))
    return branches


def _branches(node: Node) -> tuple[Node, ...]:
    node = lift_mix(node)
    return node.branches if isinstance(node, Mix) else (node,)


def _branch(
    heads: np.ndarray[Any, Any], counts: dict[Pool, Any], positions: jax.Array, x: Operands
) -> tuple[jax.Array, jax.Array]:
    dtype = jnp.promote_types(x.q.dtype, jnp.float32)
    kv_heads = heads // (x.q.shape[2] // x.k.shape[2])
    q = x.q[:, :, heads].astype(dtype)
    bias = None
    if x.bias is not None:
        bias = (x.bias[:, heads] if x.bias.shape[1] > 1 else x.bias).astype(dtype)
    logits, values = [], []
    for pool, count in counts.items():
        keys, value = (summaries(pool, a.astype(dtype), x.kv_lengths)[0][:, :, kv_heads] for a in (x.k, x.v))
        s = _pool_logits(pool, jnp.asarray(count), q, keys, bias, heads, positions, x)
        logits.append(s)
        values.append(value)
    return _softmax(jnp.concatenate(logits, axis=-1), jnp.concatenate(values, axis=1))


def _pool_logits(
    pool: Pool,
    count: jax.Array,
    q: jax.Array,
    keys: jax.Array,
    bias: jax.Array | None,
    heads: np.ndarray[Any, Any],
    positions: jax.Array,
    x: Operands,
) -> jax.Array:
    """Logits [B, N, T, slots] of one source, whose keys are [B, slots, N, H]; −inf where not kept."""
    n = x.k.shape[1]
    tokens = np.arange(pool.chunks(n))[:, None] * pool.stride + np.arange(pool.size)  # [C, size]
    real = jnp.asarray(tokens < n)[None]
    if x.kv_lengths is not None:
        real = real & (jnp.asarray(tokens)[None] < x.kv_lengths[:, None, None])
    tokens = np.minimum(tokens, n - 1)
    size = jnp.maximum(jnp.sum(real, axis=-1), 1)  # [B | 1, C]
    s = jnp.einsum("bqnh,bcnh->bnqc", q, keys, precision="highest") * x.scale
    if x.softcap is not None:
        s = jnp.tanh(s / x.softcap) * x.softcap
    if x.alibi_slopes is not None:
        middle = jnp.sum(jnp.where(real, tokens, 0), axis=-1) / size
        distance = jnp.abs(positions[:, None] - middle[:, None, :])
        s = s - x.alibi_slopes[heads].astype(s.dtype)[:, None, None] * distance[:, None]
    if bias is not None:
        inside = real[:, None, None]
        s = s + jnp.sum(jnp.where(inside, bias[..., tokens], 0), axis=-1) / size[:, None, None]
    if pool.weight == "count":
        s = s + jnp.log(size.astype(s.dtype))[:, None, None]
    count = count[:, None] if count.ndim == 3 else count  # [B | 1, N | 1, T, slots] (or without both)
    kept = (count > 0) & jnp.any(real, axis=-1)[:, None, None]
    s = s + jnp.log(jnp.maximum(count, 1).astype(s.dtype))
    return jnp.where(kept, s, -jnp.inf)


def summaries(pool: Pool, x: jax.Array, kv_lengths: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Keys or values [B, n, K, H] of the tokens → those of the chunks, [B, C, K, H], and which chunks have a
    real token, [B | 1, C]."""
    n = x.shape[1]
    if not pool.nests(n):
        raise ValueError("chunks that are not made of whole chunks have no summaries of these")
    chunk = np.arange(pool.chunks(n))[:, None]
    if pool.of is None:
        index = chunk * pool.stride + np.arange(pool.size)
        members, exist = x, jnp.arange(n)[None] < (n if kv_lengths is None else kv_lengths[:, None])
    else:
        index = chunk * pool.fan + np.arange(pool.fan)
        members, exist = summaries(pool.of, x, kv_lengths)
    last = members.shape[1] - 1
    real = jnp.asarray(index <= last) & exist[:, np.minimum(index, last)]
    return pooled(members[:, np.minimum(index, last)], real, pool.reduce), jnp.any(real, axis=-1)


def pooled(x: jax.Array, real: jax.Array, reduce: Any) -> jax.Array:
    """Chunks [B, C, size, K, H] of tokens, or of summaries, to one vector each, over the real ones
    (``real`` [B | 1, C, size])."""
    inside = real[..., None, None]
    if callable(reduce):
        some = jnp.any(real, axis=-1, keepdims=True)  # a function need not know what to make of nothing
        made = jnp.asarray(reduce(jnp.where(inside, x, 0), real | ~some))
        return jnp.where(some[..., None], made, 0)
    if reduce == "mean":
        total = jnp.sum(jnp.where(inside, x, 0), axis=2)
        return total / jnp.maximum(jnp.sum(real, axis=2), 1).astype(x.dtype)[..., None, None]
    if reduce == "max":
        most = jnp.max(jnp.where(inside, x, -jnp.inf), axis=2)
        return jnp.where(jnp.any(real, axis=2)[..., None, None], most, 0)
    if reduce == "first":
        return x[:, :, 0]
    last = jnp.maximum(jnp.sum(real, axis=2) - 1, 0)
    last = jnp.broadcast_to(last, x.shape[:2])[..., None, None, None]
    return jnp.take_along_axis(x, last, axis=2)[:, :, 0]


def _softmax(s: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output [B, T, N, Hv] and log-sum-exp [B, T, N]; rows without keys give 0 and −inf, with zero
    gradients."""
    kept = s > -jnp.inf
    some = jnp.any(kept, axis=-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(some, jnp.max(s, axis=-1, keepdims=True), 0.0))
    weights = jnp.where(kept, jnp.exp(jnp.where(kept, s - top, 0.0)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    safe = jnp.where(some, total, 1.0)
    out = jnp.einsum("bnqc,bcnh->bqnh", weights / safe, values, precision="highest")
    lse = jnp.where(some, jnp.log(safe) + top, -jnp.inf)[..., 0]
    return out, jnp.swapaxes(lse, 1, 2)
