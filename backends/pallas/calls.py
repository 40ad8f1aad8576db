"""From a plan to calls of kernels: what does not depend on the device.

Heads are grouped, operands put in the order in which a part sees them, and results of parts merged.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Kernel, Operands, Target
from patterndsl.backends.pallas.predicate import untranslatable
from patterndsl.backends.xla.heads import HeadPacking, join, pack_heads, pick
from patterndsl.backends.xla.order import Int32, Order, Result, merge
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.plan import Part, Plan


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Call:
    """A call beside q, k and v: `Operands.q_offset`, ``kv_lengths``, ``inputs`` and ``alibi_slopes``."""

    offset: jax.Array
    lengths: jax.Array | None
    inputs: dict[str, jax.Array]
    slopes: jax.Array | None = None


class PartKernels(Protocol):
    """A part made ready, with the orders of its queries and tokens."""

    queries: Order
    keys: Order

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, call: Call, scale: float, softcap: float | None
    ) -> Result:
        """The softmax over the part's places, of q [B, places, heads, H] over k, v [B, places, key heads, ·];
        ``call.slopes`` [heads]. Differentiable."""


Make: TypeAlias = Callable[[Plan, Part, HeadPacking, int], PartKernels]
"""Of a part of a plan, the heads that share it, and a number of its own."""


def lowered(plan: Plan, target: Target, make: Make) -> Kernel:
    """The function that computes the plan."""
    number = itertools.count()
    groups = []
    for g in plan.groups:
        packing = pack_heads(g.heads, target.num_heads, target.num_kv_heads)
        visited = [[p for p in b.parts if any(rows.tiles_by_row.rows for rows in p.rows)] for b in g.branches]
        groups.append((packing, [[make(plan, p, packing, next(number)) for p in its] for its in visited]))

    @functools.partial(jax.jit, static_argnames=("scale", "softcap"))
    def run(
        q: jax.Array, k: jax.Array, v: jax.Array, call: Call, *, scale: float, softcap: float | None
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
        call = Call(jnp.asarray(x.q_offset, jnp.int32), x.kv_lengths, inputs, x.alibi_slopes)
        softcap = None if x.softcap is None else float(x.softcap)
        results: list[Result] = run(x.q, x.k, x.v, call, scale=float(x.scale), softcap=softcap)
        return results

    return kernel


def _branch(
    packing: HeadPacking,
    parts: list[PartKernels],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    call: Call,
    scale: float,
    softcap: float | None,
) -> Result:
    """Output [B, T, heads, Hv] and log-sum-exp [B, T, heads], float32, of one branch of a group of heads."""
    q, k, v = pick(q, packing.heads, 2), pick(k, packing.kv_heads, 2), pick(v, packing.kv_heads, 2)
    if call.slopes is not None:
        call = dataclasses.replace(call, slopes=pick(call.slopes, packing.heads, 0))
    if not parts:
        rows = q.shape[:3]
        return jnp.zeros((*rows, v.shape[3]), jnp.float32), jnp.full(rows, -jnp.inf, jnp.float32)
    found: list[tuple[Order, Result]] = []
    for part in parts:
        operands = part.queries.take(q, 1), part.keys.take(k, 1), part.keys.take(v, 1)
        found.append((part.queries, part.attend(*operands, call, scale, softcap)))
    return merge(found)


def places(index: Int32 | None, size: int, multiple: int) -> Order:
    """Places in a multiple of some number, empty ones at the end."""
    index = np.arange(size, dtype=np.int32) if index is None else index
    return Order(np.pad(index, (0, -len(index) % multiple), constant_values=-1), size)


def refused(part: Part) -> str | None:
    """Why a part is not for kernels that walk tables of tiles, each key of which counts once."""
    if part.grouping is not None or any(s.term.keep.facts() for s in part.sources):
        return "it does not know patterns chosen from q and k"
    if any(s.pool is not TOKENS for s in part.sources):
        return "it does not know summaries"
    if not part.sources:
        return None  # nothing is kept
    if len(part.sources) != 1 or part.sources[0].term.count is not None:
        return "it counts every key once"
    what = untranslatable(part.sources[0].term.keep)
    return None if what is None else f"a predicate has {what}"
