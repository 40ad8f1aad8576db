"""The GPU backend: Pallas kernels for Hopper, through Mosaic GPU, forward and backward.

A part of a plan becomes tables of tiles (`tables`), which a warp-specialised kernel walks (`forward`), and
two more for its gradients (`backward`). Predicates are computed in registers, from the plan's own expressions
(`predicate`). Written and run with JAX 0.11; Mosaic is imported where a plan is lowered, not before.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Kernel, Operands, Target, Unsupported
from patterndsl.backends.launches import launch
from patterndsl.backends.pallas.predicate import untranslatable
from patterndsl.backends.pallas.tables import Tables, cells, tables
from patterndsl.backends.pallas_gpu import backward, forward
from patterndsl.backends.pallas_gpu.forward import LOG2E, Indices, Settings
from patterndsl.backends.pallas_gpu.pipeline import GROUP
from patterndsl.backends.xla.heads import HeadPacking, join, pack_heads, pick
from patterndsl.backends.xla.order import Int32, Order, Result, merge
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import Part, Plan

HEAD_DIMS = (64, 128)
"""Sizes that the kernels are made for; others are padded with zeros."""
DTYPES = ("bfloat16", "float16")
CHIP = "sm90"
MOST_CELLS = 2**23
"""Tiles in a part's tables, which are constants of the program: 32 MiB."""
PLACES = 128
"""Places are padded to multiples of what any of the kernels takes at once."""


class PallasGpuBackend:
    """Plans over tokens, in bfloat16 and float16, on Hopper GPUs."""

    name = "pallas_gpu"

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        """None where the plan can be lowered for the target, else the reason why not."""
        why = unavailable(target.platform, target.chip) or _operands(target) or refused(plan)
        return None if why is None else Unsupported(why, "use backend='xla'")

    def lower(self, plan: Plan, target: Target) -> Kernel:
        """The function that computes the plan. Raises ValueError where `supports` refuses."""
        why = self.supports(plan, target)
        if why is not None:
            raise ValueError(f"the pallas_gpu backend cannot run this plan: {why.reason}; {why.advice}")
        number, head_dim = itertools.count(), _padded(target.head_dim, target.v_head_dim)
        groups = [
            (
                pack_heads(g.heads, target.num_heads, target.num_kv_heads),
                [
                    [_Part(plan, p, head_dim, next(number)) for p in b.parts if _visited(p)]
                    for b in g.branches
                ],
            )
            for g in plan.groups
        ]

        @functools.partial(jax.jit, static_argnames=("scale", "softcap"))
        def run(
            q: jax.Array, k: jax.Array, v: jax.Array, call: _Call, *, scale: float, softcap: float | None
        ) -> list[Result]:
            if call.lengths is not None:  # beyond them may lie anything, NaN too
                real = (jnp.arange(plan.n) < call.lengths[:, None])[..., None, None]
                k, v = jnp.where(real, k, 0), jnp.where(real, v, 0)
            order = np.argsort(np.concatenate([packing.heads for packing, _ in groups]))
            results = []
            for i in range(max(len(branches) for _, branches in groups)):
                found = [
                    _branch(packing, branches[i] if i < len(branches) else [], q, k, v, call, scale, softcap)
                    for packing, branches in groups
                ]
                results.append((join([f[0] for f in found], order), join([f[1] for f in found], order)))
            return results

        def kernel(x: Operands) -> list[Result]:
            inputs = {name: x.inputs[name] for name in plan.inputs}
            slopes = None if x.alibi_slopes is None else x.alibi_slopes.astype(jnp.float32)
            call = _Call(jnp.asarray(x.q_offset, jnp.int32), x.kv_lengths, inputs, slopes)
            softcap = None if x.softcap is None else float(x.softcap)
            results: list[Result] = run(x.q, x.k, x.v, call, scale=float(x.scale), softcap=softcap)
            return results

        return kernel


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Call:
    """Of `Operands`: ``q_offset``, ``kv_lengths``, ``inputs`` and, in float32, ``alibi_slopes``."""

    offset: jax.Array
    lengths: jax.Array | None
    inputs: dict[str, jax.Array]
    slopes: jax.Array | None


class _Part:
    """A part made ready: its tables for each kernel, and the orders of its queries and tokens."""

    def __init__(self, plan: Plan, part: Part, head_dim: int, number: int) -> None:
        (source,) = part.sources
        self.name = f"part {number}"
        self.predicate, self.tokens = source.term.keep, plan.n
        self.inputs = tuple(name for name in plan.inputs if name in self.predicate.inputs())
        layout = part.layout
        self.reordered = layout.queries is not None or layout.tokens is not None
        self.queries = _order(layout.queries, plan.n_q)
        self.keys = _order(layout.tokens, plan.n)
        self.shapes = forward.shape_for(head_dim), backward.dq_shape(head_dim), backward.dkv_shape(head_dim)
        rows, dq, dkv = self.shapes
        self.rows = tables(part, plan.n_q, rows.tile, rows.block)[0]
        self.dq_rows = tables(part, plan.n_q, dq.tile, dq.block)[0]
        self.columns = tables(part, plan.n_q, dkv.block, dkv.tile)[1]

    def settings(self, scale: float, softcap: float | None, call: _Call) -> Settings:
        """What the kernels are compiled for."""
        return Settings(
            self.predicate,
            self.inputs,
            scale,
            softcap,
            lengths=call.lengths is not None,
            tokens=self.tokens,
            reordered=self.reordered,
            gaps=self.keys.gaps,
            slopes=call.slopes is not None,
        )

    def indices(self, call: _Call, batch: int) -> Indices:
        """What the kernels read beside tables."""
        lengths = jnp.full(batch, self.tokens, jnp.int32) if call.lengths is None else call.lengths
        scalars = jnp.stack([jnp.broadcast_to(call.offset, (batch,)), lengths], axis=1)
        q_at, k_at = (jnp.asarray(order.index) for order in (self.queries, self.keys))
        inputs = [call.inputs[name] for name in self.inputs]
        return Indices(
            jnp.zeros((1, 1, 4), jnp.int32),
            jnp.zeros((1, 1), jnp.int32),
            scalars.astype(jnp.int32),
            q_at if self.reordered else None,
            k_at if self.reordered else None,
            tuple(jnp.take(x, q_at + call.offset, axis=1, mode="clip") for x in inputs),
            tuple(jnp.take(x, k_at, axis=1, mode="clip") for x in inputs),
        )


def _order(index: Int32 | None, size: int) -> Order:
    """Places in a multiple of `PLACES`, empty ones at the end."""
    index = np.arange(size, dtype=np.int32) if index is None else index
    return Order(np.pad(index, (0, -len(index) % PLACES), constant_values=-1), size)


def unavailable(platform: str, chip: str | None = None) -> str | None:
    """Why the kernels do not run here, or are not compiled for a chip that is not here."""
    if platform != "gpu":
        return f"it runs on GPUs, not on {platform}"
    if chip is None:
        if tuple(int(x) for x in jax.__version__.split(".")[:2]) < (0, 11):
            return f"it needs JAX 0.11 or later, this is {jax.__version__}"
        chip = "sm" + getattr(jax.devices()[0], "compute_capability", " unknown").replace(".", "")
    return None if chip == CHIP else f"it runs on Hopper GPUs ({CHIP}), and this one's is {chip}"


def fits(head_dim: int, v_head_dim: int) -> bool:
    """Whether the kernels take heads of these sizes."""
    return max(head_dim, v_head_dim) <= HEAD_DIMS[-1]


def _padded(head_dim: int, v_head_dim: int) -> int:
    """The size for which the kernels run them."""
    return next(size for size in HEAD_DIMS if max(head_dim, v_head_dim) <= size)


def refused(plan: Plan) -> str | None:
    """Why the kernels do not compute a plan, whatever the operands."""
    parts = (p for g in plan.groups for b in g.branches for p in b.parts)
    return next((reason for part in parts if (reason := _refused(plan, part)) is not None), None)


def _operands(target: Target) -> str | None:
    """Why the kernels do not take these operands."""
    if target.dtype not in DTYPES:
        return f"it computes in {' and '.join(DTYPES)}, not {target.dtype}"
    if not fits(target.head_dim, target.v_head_dim):
        return f"heads are of {HEAD_DIMS[-1]} at most, not {max(target.head_dim, target.v_head_dim)}"
    return "it knows no bias" if target.has_bias else None


def _refused(plan: Plan, part: Part) -> str | None:
    """Why the kernels do not compute a part."""
    if part.grouping is not None or any(s.term.keep.facts() for s in part.sources):
        return "it does not know patterns chosen from q and k"
    if any(s.pool is not TOKENS for s in part.sources):
        return "it does not know summaries"
    if not part.sources:
        return None  # nothing is kept
    if len(part.sources) != 1 or part.sources[0].term.count is not None:
        return "it counts every key once"
    what = untranslatable(part.sources[0].term.keep)
    if what is not None:
        return f"a predicate has {what}"
    tile = GROUP
    found = cells(part, plan.n_q, tile, tile)
    if found > MOST_CELLS:
        return f"its tables would have {found:,} tiles, of which at most {MOST_CELLS:,} are allowed"
    return None


def _visited(part: Part) -> bool:
    return any(g.tiles_by_row.rows for g in part.rows)


def _branch(
    packing: HeadPacking,
    parts: list[_Part],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    call: _Call,
    scale: float,
    softcap: float | None,
) -> Result:
    """Output [B, T, heads, Hv] and log-sum-exp [B, T, heads], float32, of one branch of a group of heads."""
    q, k, v = pick(q, packing.heads, 2), pick(k, packing.kv_heads, 2), pick(v, packing.kv_heads, 2)
    if not parts:
        rows = q.shape[:3]
        return jnp.zeros((*rows, v.shape[3]), jnp.float32), jnp.full(rows, -jnp.inf, jnp.float32)
    size, v_dim = _padded(q.shape[3], v.shape[3]), v.shape[3]
    q, k, v = (jnp.pad(x, (*[(0, 0)] * 3, (0, size - x.shape[3]))) for x in (q, k, v))
    slopes = None if call.slopes is None else pick(call.slopes, packing.heads, 0)
    found: list[tuple[Order, Result]] = []
    for part in parts:
        operands = part.queries.take(q, 1), part.keys.take(k, 1), part.keys.take(v, 1)
        attend = _differentiable(part, part.settings(scale, softcap, call))
        found.append((part.queries, attend(*operands, slopes, part.indices(call, q.shape[0]))))
    out, lse = merge(found)
    return out[..., :v_dim], lse


def _differentiable(part: _Part, settings: Settings) -> Any:
    """The softmax over a part's places, with its backward pass."""
    rows, dq_shape, dkv_shape = part.shapes

    # Kernels have no rule for vmap.
    one_by_one: Callable[[Any], Any] = jax.custom_batching.sequential_vmap

    @one_by_one
    def forwards(q: jax.Array, k: jax.Array, v: jax.Array, slopes: Any, x: Indices) -> Result:
        x = x._replace(slopes=slopes)
        run = functools.partial(forward.forward, settings, rows)
        found: Result = launch(f"{part.name} forward", run, _with(x, part.rows), q, k, v)
        return found

    @one_by_one
    def backwards(
        operands: Any, slopes: Any, x: Indices, out: jax.Array, lse: jax.Array, d_out: Any, d_lse: Any
    ) -> Any:
        x = x._replace(slopes=slopes)
        exists = (jnp.asarray(part.queries.index) >= 0) & (lse > -jnp.inf)
        delta = jnp.sum(d_out * out.astype(jnp.float32), axis=-1) - d_lse
        delta = jnp.where(exists, jnp.swapaxes(delta, 1, 2), 0.0)
        scaled = jnp.where(exists, lse * LOG2E, jnp.inf)
        low = (*operands, d_out.astype(operands[0].dtype))
        of_queries = functools.partial(backward.queries_backward, settings, dq_shape)
        of_keys = functools.partial(backward.keys_backward, settings, dkv_shape)
        dq, reach = launch(f"{part.name} dq", of_queries, _with(x, part.dq_rows), low, scaled, delta)
        dk, dv = launch(f"{part.name} dk dv", of_keys, _with(x, part.columns), low, scaled, delta)
        return dq, dk, dv, None if reach is None else reach.sum(axis=(0, 2))

    @jax.custom_vjp
    def attend(q: jax.Array, k: jax.Array, v: jax.Array, slopes: Any, x: Indices) -> Result:
        return _finished(*forwards(q, k, v, slopes, x))

    def save(q: jax.Array, k: jax.Array, v: jax.Array, slopes: Any, x: Indices) -> tuple[Result, Any]:
        out, lse = forwards(q, k, v, slopes, x)
        return _finished(out, lse), ((q, k, v), slopes, x, out, lse)

    def pull(saved: Any, cotangents: Result) -> Any:
        return (*backwards(*saved, *cotangents), None)

    attend.defvjp(save, pull)
    return attend


def _with(x: Indices, found: Tables) -> Indices:
    return x._replace(rows=jnp.asarray(found.rows)[None], blocks=jnp.asarray(found.blocks)[None])


def _finished(out: jax.Array, lse: jax.Array) -> Result:
    return out.astype(jnp.float32), jnp.swapaxes(lse, 1, 2)


BACKEND = PallasGpuBackend()
