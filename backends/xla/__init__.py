"""The XLA backend: block-sparse attention on any device, forward and backward, in linear memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Kernel, Operands, Target, Unsupported
from patterndsl.backends.facts import facts_of
from patterndsl.backends.xla.backward import backward
from patterndsl.backends.xla.forward import forward
from patterndsl.backends.xla.grouped import GroupedFloats, attend_grouped
from patterndsl.backends.xla.heads import HeadPacking, join, pack_heads
from patterndsl.backends.xla.logits import Floats, Runtime, Settings, accumulator
from patterndsl.backends.xla.order import Result, merge, pad
from patterndsl.backends.xla.schedule import GroupedPass, prepare_grouped
from patterndsl.backends.xla.summaries import refused, summarize, summarize_bias
from patterndsl.backends.xla.tiles import Pass, prepare
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import BranchPlan, Plan

PartFunction = Callable[[Floats, Runtime], tuple[jax.Array, jax.Array]]


class XlaBackend:
    """Every plan, on every platform and in every floating dtype."""

    name = "xla"

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        """None where the plan can be lowered for the target, else the reason why not."""
        if not jnp.issubdtype(jnp.dtype(target.dtype), jnp.floating):
            return Unsupported(f"the dtype is {target.dtype}", "use a floating dtype")
        for group in plan.groups:
            for part in (p for b in group.branches for p in b.parts):
                for source in part.sources:
                    why = refused(source.pool, plan.n)
                    if why is not None:
                        return why
        return None

    def lower(self, plan: Plan, target: Target) -> Kernel:
        """The function that computes the plan. Raises ValueError where `supports` refuses."""
        why = self.supports(plan, target)
        if why is not None:
            raise ValueError(f"the xla backend cannot run this plan: {why.reason}; {why.advice}")
        program = _Program(plan, target)

        def kernel(x: Operands) -> list[tuple[jax.Array, jax.Array]]:
            arrays = (x.q, x.k, x.v, x.alibi_slopes, x.bias)
            facts = facts_of((g.node for g in plan.groups), x) if plan.facts else {}
            run = Runtime(
                jnp.asarray(x.q_offset, jnp.int32),
                x.kv_lengths,
                {name: x.inputs[name] for name in plan.inputs},
                tuple(facts[fact] for fact in plan.facts),
            )
            softcap = None if x.softcap is None else float(x.softcap)
            results: list[tuple[jax.Array, jax.Array]] = program.run(
                *arrays, run, scale=float(x.scale), softcap=softcap
            )
            return results

        return kernel


class _Program:
    """A plan made ready: for each group of heads its packing and its branches."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self.plan = plan
        self.v_head_dim = target.v_head_dim
        self.groups = [
            (
                pack_heads(g.heads, target.num_heads, target.num_kv_heads),
                [_prepare(b, plan.n, plan.n_q) for b in g.branches],
            )
            for g in plan.groups
        ]
        self.run = jax.jit(self._run, static_argnames=("scale", "softcap"))

    def _run(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        slopes: jax.Array | None,
        bias: jax.Array | None,
        run: Runtime,
        *,
        scale: float,
        softcap: float | None,
    ) -> list[tuple[jax.Array, jax.Array]]:
        dtype = jnp.result_type(q, k, v)
        q, k, v = q.astype(dtype), k.astype(dtype), v.astype(dtype)
        if run.kv_lengths is not None:  # beyond them may lie anything, NaN too
            real = (jnp.arange(self.plan.n) < run.kv_lengths[:, None])[..., None, None]
            k, v = jnp.where(real, k, 0), jnp.where(real, v, 0)
        settings = Settings(self.plan.n, scale, softcap, self.plan.facts)
        pools = {pool for _, branches in self.groups for parts in branches for p in parts for pool in p.pools}
        keys, values = (summarize(x, pools, run.kv_lengths) for x in (k, v))
        made = {
            pool: _Made(
                keys[pool],
                values[pool],
                None if bias is None else summarize_bias(bias, pool, run.kv_lengths),
            )
            for pool in pools
        }
        results = []
        for i in range(max(len(branches) for _, branches in self.groups)):
            found = [
                self._branch(settings, i, packing, branches, q, made, slopes, run)
                for packing, branches in self.groups
            ]
            order = np.argsort(np.concatenate([packing.heads for packing, _ in self.groups]))
            out, lse = (join([f[j] for f in found], order) for j in (0, 1))
            results.append((out, lse))
        return results

    def _branch(
        self,
        settings: Settings,
        i: int,
        heads: HeadPacking,
        branches: list[tuple[Pass | GroupedPass, ...]],
        q: jax.Array,
        made: Mapping[Pool, _Made],
        slopes: jax.Array | None,
        run: Runtime,
    ) -> tuple[jax.Array, jax.Array]:
        """Output [B, T, heads, Hv] and log-sum-exp [B, T, heads] of one branch of one group of heads."""
        batch, length = q.shape[:2]
        dtype = accumulator(q.dtype)
        if i >= len(branches) or not branches[i] or not length:
            shape = (batch, length, len(heads.heads))
            return jnp.zeros((*shape, self.v_head_dim), dtype), jnp.full(shape, -jnp.inf, dtype)
        slopes = None if slopes is None else heads.slopes(slopes.astype(dtype))
        return merge([(p.queries, _part(settings, p, heads, q, made, slopes, run)) for p in branches[i]])


def _prepare(plan: BranchPlan, n: int, n_q: int) -> tuple[Pass | GroupedPass, ...]:
    """The parts of a branch that keep something."""
    found: list[Pass | GroupedPass] = []
    for part in plan.parts:
        if part.grouping is not None:
            found.append(prepare_grouped(part, n, n_q))
        elif any(g.tiles_by_row.rows for g in part.rows):
            found.append(prepare(part, n, n_q))
    return tuple(found)


def _part(
    settings: Settings,
    part: Pass | GroupedPass,
    heads: HeadPacking,
    q: jax.Array,
    made: Mapping[Pool, _Made],
    slopes: jax.Array | None,
    run: Runtime,
) -> Result:
    """The softmax over one part, of its queries in their order."""
    run = run._replace(facts=tuple(heads.fact(x) for x in run.facts))
    if isinstance(part, GroupedPass):
        return _grouped(settings, part, heads, q, made[TOKENS], slopes, run)

    def slots(x: jax.Array, pool: Pool, extent: int, axis: int) -> jax.Array:
        ordered = part.tokens.take(x, axis) if pool is TOKENS else x
        return pad(ordered, extent, axis)

    k, v, biases = [], [], []
    for pool, extent in zip(part.pools, part.extents, strict=True):
        k.append(heads.keys(slots(made[pool].k, pool, extent, 1)))
        v.append(heads.keys(slots(made[pool].v, pool, extent, 1)))
        bias = made[pool].bias
        if bias is not None:
            biases.append(heads.bias(slots(part.queries.take(bias, 2), pool, extent, 3)))
    x = Floats(
        heads.tiles(part.queries.take(q, 1), part.block_q),
        tuple(k),
        tuple(v),
        tuple(biases) if biases else None,
        slopes,
    )
    out, lse = _differentiable(settings, part)(x, run)
    return heads.rows(out, part.block_q), heads.rows(lse[..., None], part.block_q)[..., 0]


def _grouped(
    settings: Settings,
    part: GroupedPass,
    heads: HeadPacking,
    q: jax.Array,
    tokens: _Made,
    slopes: jax.Array | None,
    run: Runtime,
) -> Result:
    """The same of a part with groups of keys."""
    x = GroupedFloats(
        heads.tiles(q, q.shape[1])[0].reshape(
            q.shape[0], len(heads.kv_heads), heads.per_kv, q.shape[1], q.shape[3]
        ),
        heads.keys(tokens.k)[:, :, None],
        heads.keys(tokens.v)[:, :, None],
        None if tokens.bias is None else heads.bias(tokens.bias),
        None if slopes is None else slopes[None],
    )
    out, lse = attend_grouped(settings, part, x, run)
    whole = tuple(
        jnp.moveaxis(a, 3, 1).reshape(a.shape[0], a.shape[3], len(heads.heads), -1)
        for a in (out, lse[..., None])
    )
    return whole[0], whole[1][..., 0]


@dataclasses.dataclass(frozen=True)
class _Made:
    """Keys, values [B, slots, K, H] and bias [B | 1, N | 1, T, slots] of a pool."""

    k: jax.Array
    v: jax.Array
    bias: jax.Array | None


def _differentiable(settings: Settings, part: Pass) -> PartFunction:
    """A part with its block-sparse backward pass."""

    @jax.custom_vjp
    def attend(x: Floats, run: Runtime) -> tuple[jax.Array, jax.Array]:
        return forward(settings, part, x, run)

    def save(x: Floats, run: Runtime) -> tuple[tuple[jax.Array, jax.Array], Any]:
        out, lse = forward(settings, part, x, run)
        return (out, lse), (x, run, out, lse)

    def pull(saved: Any, cotangents: tuple[jax.Array, jax.Array]) -> tuple[Floats, None]:
        x, run, out, lse = saved
        return backward(settings, part, x, run, out, lse, *cotangents), None

    attend.defvjp(save, pull)
    return attend


BACKEND = XlaBackend()
