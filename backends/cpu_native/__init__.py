"""The native CPU backend: a kernel in C++ that runs a plan block-sparsely, forward and backward.

It is optional. Nothing is compiled when the package is installed;
``python -m patterndsl.backends.cpu_native build`` compiles the sources in ``src/`` with the system's compiler
(`build`). A branch of a plan becomes a schedule (`schedule`) with its predicates as bytecode (`bytecode`),
and a pair of custom calls (`calls`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Kernel, Operands, Target, Unsupported
from patterndsl.backends.cpu_native import build
from patterndsl.backends.cpu_native.bytecode import Untranslatable
from patterndsl.backends.cpu_native.calls import Floats, Runtime, Settings, branch_function
from patterndsl.backends.cpu_native.schedule import Schedule, make_schedule
from patterndsl.backends.facts import FactArray, facts_of, of_heads
from patterndsl.backends.native_library import DTYPES
from patterndsl.backends.xla.heads import HeadPacking, pack_heads, pick
from patterndsl.backends.xla.summaries import refused, summarize, summarize_bias
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr
from patterndsl.plan.plan import Plan

Result = tuple[jax.Array, jax.Array]


class CpuNativeBackend:
    """Every plan in float32 and bfloat16, on the CPU, where it was built."""

    name = "cpu_native"

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        """None where the plan can be lowered for the target, else the reason why not."""
        if target.platform != "cpu":
            return Unsupported(f"it runs on the CPU, not on {target.platform}", "use backend='xla'")
        if target.dtype not in DTYPES:
            return Unsupported(
                f"it computes in {' and '.join(DTYPES)}, not {target.dtype}", "use backend='xla'"
            )
        if plan.facts_by_tiles:
            chosen = ", ".join(dict.fromkeys(str(fact.pattern) for fact in plan.facts_by_tiles))
            return Unsupported(
                "of patterns chosen from q and k it runs those that bring queries and keys together in "
                f"groups, and this plan asks tile by tile: {chosen}",
                "use backend='xla', which skips tiles of which no query has chosen a key",
            )
        for source in (s for g in plan.groups for b in g.branches for p in b.parts for s in p.sources):
            no_summaries = refused(source.pool, plan.n)
            if no_summaries is not None:
                return no_summaries
        why = build.load()
        if why is not None:
            return Unsupported(why, f"run `{build.COMMAND}`, or use backend='xla'")
        try:
            _schedules(plan, target.num_heads, target.num_kv_heads, target.has_bias)
        except Untranslatable as error:
            return Unsupported(f"a predicate cannot be translated: {error}", "use backend='xla'")
        return None

    def lower(self, plan: Plan, target: Target) -> Kernel:
        """The function that computes the plan. Raises ValueError where `supports` refuses."""
        why = self.supports(plan, target)
        if why is not None:
            raise ValueError(f"the cpu_native backend cannot run this plan: {why.reason}; {why.advice}")
        name = build.library().stem

        @functools.partial(jax.jit, static_argnames=("scale", "softcap"))
        def run(x: dict[str, Any], *, scale: float, softcap: float) -> list[Result]:
            return _run(plan, target, Settings(name, scale, softcap), x)

        def kernel(x: Operands) -> list[Result]:
            arrays = {"q": x.q, "k": x.k, "v": x.v, "alibi_slopes": x.alibi_slopes, "bias": x.bias}
            arrays |= {"kv_lengths": x.kv_lengths, "q_offset": jnp.asarray(x.q_offset, jnp.int32)}
            arrays |= {f"input {name}": x.inputs[name] for name in plan.inputs}
            found: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
            facts = facts_of((g.node for g in plan.groups), x, name) if plan.facts else {}
            found["facts"] = tuple(facts[fact] for fact in plan.facts)
            results: list[Result] = run(found, scale=float(x.scale), softcap=float(x.softcap or 0.0))
            return results

        return kernel


@functools.lru_cache(maxsize=64)
def _schedules(
    plan: Plan, num_heads: int, num_kv_heads: int, has_bias: bool
) -> list[tuple[HeadPacking, list[Schedule]]]:
    """For each group of heads its packing and its branches."""
    found = []
    for group in plan.groups:
        packing = pack_heads(group.heads, num_heads, num_kv_heads)
        found.append((packing, [make_schedule(plan, b, packing.per_kv, has_bias) for b in group.branches]))
    return found


def _run(plan: Plan, target: Target, settings: Settings, x: dict[str, Any]) -> list[Result]:
    bias, lengths, slopes = x.get("bias"), x.get("kv_lengths"), x.get("alibi_slopes")
    groups = _schedules(plan, target.num_heads, target.num_kv_heads, bias is not None)
    pools = {pool for _, branches in groups for b in branches for pool in b.pools}
    keys, values = (summarize(x[name], pools, lengths) for name in ("k", "v"))
    biases = {}
    if bias is not None:
        wide = bias.astype(jnp.float32)
        biases = {pool: summarize_bias(wide, pool, lengths) for pool in pools}
    made = dict(zip(plan.facts, x["facts"], strict=True))
    run = Runtime(
        x["q_offset"].reshape(1),
        jnp.zeros(0, jnp.int32) if lengths is None else lengths,
        tuple(x[f"input {name}"] for name in plan.inputs),
    )

    def branch(packing: HeadPacking, branches: list[Schedule], i: int) -> Result:
        rows = (*x["q"].shape[:2], len(packing.heads))
        if i >= len(branches) or not branches[i].pools:
            return jnp.zeros((*rows, target.v_head_dim)), jnp.full(rows, -jnp.inf)
        schedule = branches[i]
        floats = Floats(
            pick(x["q"], packing.heads, 2),
            tuple(pick(keys[pool], packing.kv_heads, 2) for pool in schedule.pools),
            tuple(pick(values[pool], packing.kv_heads, 2) for pool in schedule.pools),
            tuple(_heads_of(biases[pool], packing) for pool in schedule.pools if biases),
            jnp.zeros(0) if slopes is None else pick(slopes.astype(jnp.float32), packing.heads, 0),
        )
        facts = tuple(_fact(of_heads(made[fact], packing.heads)) for fact in schedule.facts)
        rows = tuple(_rows_read(row, x["q_offset"], plan.n_q) for row in schedule.rows)
        return branch_function(settings, schedule)(floats, run._replace(facts=facts, rows=rows))

    order = np.argsort(np.concatenate([packing.heads for packing, _ in groups]))
    results = []
    for i in range(max(len(branches) for _, branches in groups)):
        found = [branch(packing, branches, i) for packing, branches in groups]
        out, lse = (_join([f[j] for f in found], order) for j in (0, 1))
        results.append((out, lse))
    return results


def _fact(x: FactArray) -> tuple[jax.Array, jax.Array]:
    """A fact with two axes, bytes where it is made of them."""
    values = x.values if x.values.ndim == 4 else x.values[..., None]
    values = values if values.dtype == jnp.int8 else values.astype(jnp.int32)
    return values, jnp.asarray(x.first, jnp.int32).reshape(1)


def _rows_read(row: Expr, offset: jax.Array, n_q: int) -> jax.Array:
    positions = offset + jnp.arange(n_q, dtype=jnp.int32)
    found = jnp.asarray(evaluate(row, {"q": positions}, None, jnp), jnp.int32)
    return jnp.broadcast_to(found, (n_q,))


def _heads_of(bias: jax.Array, packing: HeadPacking) -> jax.Array:
    return bias if bias.shape[1] == 1 else pick(bias, packing.heads, 1)


def _join(parts: list[jax.Array], order: np.ndarray) -> jax.Array:
    """Groups of heads put together, in the order of the heads."""
    return parts[0] if len(parts) == 1 else jnp.take(jnp.concatenate(parts, axis=2), order, axis=2)


BACKEND = CpuNativeBackend()
