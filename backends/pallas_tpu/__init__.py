"""The TPU backend: Pallas kernels through Mosaic, forward and backward.

A part of a plan becomes lists of steps (`steps`), one for each tile that keeps something, which a kernel's
grid walks (`forward`, `backward`); the next blocks are fetched meanwhile, as the lists are known before
(scalar prefetch). Predicates are computed from the plan's own expressions (`patterndsl.backends.pallas`).

Nothing is lowered to JAX's own splash attention: it computes in the kernel no mask but its own classes, reads
all combined ones from memory (and looks at n² bits to find them), masks whole tiles too where any is partial,
and knows neither layouts nor lengths that are no multiples of a tile.

They have not run on a TPU: the tests run them in Pallas' interpreter (``Target.interpret``, by
`Attention.on(INTERPRETED_TPU)`), and have the TPU's own compiler compile them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from patterndsl.backends import Kernel, Target, Unsupported
from patterndsl.backends.launches import launch
from patterndsl.backends.pallas import calls
from patterndsl.backends.pallas.calls import Call, lowered
from patterndsl.backends.pallas.tables import Tables, cells, tables
from patterndsl.backends.pallas_tpu import backward, forward
from patterndsl.backends.pallas_tpu.kernel import LANES, LOG2E, Indices, Settings, Table
from patterndsl.backends.pallas_tpu.steps import Steps, steps
from patterndsl.backends.xla.heads import HeadPacking, pack_heads
from patterndsl.backends.xla.order import Result
from patterndsl.devices import INTERPRETED_TPU
from patterndsl.plan.plan import Part, Plan

DTYPES = ("float32", "bfloat16")
CHIPS = ("v5e", "v5p", "v6e", "7x")
KINDS = {"TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}
KINDS |= {"TPU v6e": "v6e", "TPU7x": "7x"}
"""What JAX calls these chips."""
MOST_HEAD_DIM = 256
MOST_STEPS = 96 * 1024
"""Steps of a kernel, of which two numbers each lie in scalar memory: 3/4 of a MiB, of one."""
MOST_QUERIES = 1024
"""Queries in a tile, those of all its heads."""
SIZES = (256, 512, 1024)
LARGEST = 2**19
"""Pairs in a tile: what fits into vector memory, backward too."""
STEP = 900
PAIR = 0.0047
"""Cycles that a step takes, and a pair in it, near the compiler's static estimate for a v5e, heads of 128 in
bfloat16 and full tiles, forward: 2,107 for 512 × 512 pairs, 3,467 for 512 × 1024."""


@dataclasses.dataclass
class PallasTpuBackend:
    """Plans over tokens, in float32 and bfloat16, on TPUs. ``interpreter``: how targets that are interpreted
    are run, as `pallas_call` takes it; ``tiles``: queries of a head and keys, where not chosen by the plan
    (multiples of 128)."""

    interpreter: Any = True
    tiles: tuple[int, int] | None = None
    name = "pallas_tpu"

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        """None where the plan can be lowered for the target, else the reason why not."""
        why = unavailable(target.platform, target.chip) or _operands(target)
        why = why or refused(plan, target.num_heads, target.num_kv_heads)
        return None if why is None else Unsupported(why, "use backend='xla'")

    def lower(self, plan: Plan, target: Target) -> Kernel:
        """The function that computes the plan. Raises ValueError where `supports` refuses."""
        why = self.supports(plan, target)
        if why is not None:
            raise ValueError(f"the pallas_tpu backend cannot run this plan: {why.reason}; {why.advice}")
        interpret = self.interpreter if target.interpret else False

        def make(plan: Plan, part: Part, packing: HeadPacking, number: int) -> _Part:
            return _Part(plan, part, packing, target.batch, f"part {number}", interpret, self.tiles)

        return lowered(plan, target, make)


class _Part:
    """A part made ready: its steps for each kernel, and the orders of its queries and tokens."""

    def __init__(
        self,
        plan: Plan,
        part: Part,
        packing: HeadPacking,
        batch: int,
        name: str,
        interpret: Any,
        tiles: tuple[int, int] | None,
    ) -> None:
        (source,) = part.sources
        self.predicate, self.tokens = source.term.keep, plan.n
        self.inputs = tuple(name for name in plan.inputs if name in self.predicate.inputs())
        self.name, self.interpret = name, interpret
        self.packed = packed(packing.per_kv)
        self.per_kv = packing.per_kv // self.packed
        block_q, block_k = self.tiles = tiles or choose(plan, part, self.packed)
        by_row, by_column = tables(part, plan.n_q, block_q, block_k)
        groups = len(packing.kv_heads) * self.per_kv
        lists = 2 if isinstance(batch, int) and batch * groups % 2 else 1  # else heads keep two cores busy
        self.rows, self.columns = steps(by_row, lists), steps(by_column, lists)
        layout = part.layout
        self.reordered = layout.queries is not None or layout.tokens is not None
        self.queries = calls.places(layout.queries, plan.n_q, block_q)
        self.keys = calls.places(layout.tokens, plan.n, block_k)

    def settings(self, scale: float, softcap: float | None, call: Call) -> Settings:
        """What the kernels are compiled for."""
        return Settings(
            self.predicate,
            self.inputs,
            scale,
            softcap,
            *self.tiles,
            self.packed,
            self.per_kv,
            call.lengths is not None,
            self.tokens,
            self.reordered,
            self.keys.gaps,
            call.slopes is not None,
            self.interpret,
        )

    def indices(self, call: Call, batch: int) -> Indices:
        """What the kernels read beside tables, but for the slopes."""
        lengths = jnp.full(batch, self.tokens, jnp.int32) if call.lengths is None else call.lengths
        scalars = jnp.stack([jnp.broadcast_to(call.offset, (batch,)), lengths], axis=1)
        scalars = scalars.astype(jnp.int32).reshape(-1)
        inputs = [call.inputs[name] for name in self.inputs]
        rows = max([x.shape[0] for x in inputs], default=1)
        found = []
        for order, shift in ((self.queries, call.offset), (self.keys, 0)):
            at = jnp.asarray(order.index)
            values = [at[None]] if self.reordered else []
            values += [jnp.take(x, at + shift, axis=1, mode="clip") for x in inputs]
            values = [jnp.broadcast_to(x, (rows, at.size)) for x in values]
            found.append(jnp.stack(values, axis=1) if values else None)
        return Indices(scalars, None, *found)

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, call: Call, scale: float, softcap: float | None
    ) -> Result:
        """The softmax over the part's places."""
        run = _differentiable(self, self.settings(scale, softcap, call))
        slopes = None if call.slopes is None else call.slopes.astype(jnp.float32)
        result: Result = run((q, k, v, slopes), self.indices(call, q.shape[0]))
        return result

    def pack(self, x: jax.Array) -> jax.Array:
        """[B, places, heads, H] → [B, groups, heads of a group, places, H]."""
        batch, places, heads, size = x.shape
        return x.reshape(batch, places, heads // self.packed, self.packed, size).transpose(0, 2, 3, 1, 4)

    def unpack(self, x: jax.Array) -> jax.Array:
        """[B, groups, tiles, H, queries] → [B, places, heads, H]."""
        batch, groups, tiles, size, lanes = x.shape
        block_q = lanes // self.packed
        x = x.reshape(batch, groups, tiles, size, self.packed, block_q).transpose(0, 2, 5, 1, 4, 3)
        return x.reshape(batch, tiles * block_q, groups * self.packed, size)

    def per_query(self, x: jax.Array) -> jax.Array:
        """[B, places, heads] → [B, groups, tiles, 1, queries]."""
        batch, places, heads = x.shape
        block_q = self.tiles[0]
        x = x.reshape(batch, places // block_q, block_q, heads // self.packed, self.packed)
        x = x.transpose(0, 3, 1, 4, 2)
        return x.reshape(*x.shape[:3], 1, self.packed * block_q)


def _differentiable(part: _Part, settings: Settings) -> Any:
    """The softmax over a part's places, with its backward pass; of ((q, k, v, slopes), indices)."""
    # Kernels have no rule for vmap.
    one_by_one: Callable[[Any], Any] = jax.custom_batching.sequential_vmap

    @one_by_one
    def forwards(operands: Any, x: Indices) -> Result:
        q, k, v, slopes = operands
        run = functools.partial(
            forward.forward, settings, _kinds(part.rows), f"{part.name} forward".replace(" ", "_")
        )
        across = part.pack(q), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 3, 1)
        numbers = x._replace(slopes=slopes)
        out, lse = launch(f"{part.name} forward", run, _table(part.rows), numbers, *across)
        return part.unpack(out), part.unpack(lse)[..., 0]

    @one_by_one
    def backwards(operands: Any, x: Indices, out: jax.Array, lse: jax.Array, d_out: Any, d_lse: Any) -> Any:
        q, k, v, slopes = operands
        x = x._replace(slopes=slopes)
        exists = (jnp.asarray(part.queries.index) >= 0)[:, None] & (lse > -jnp.inf)
        delta = jnp.where(exists, jnp.sum(d_out * out.astype(jnp.float32), axis=-1) - d_lse, 0.0)
        scaled = jnp.where(exists, lse * LOG2E, jnp.inf)
        of_rows = part.pack(d_out.astype(q.dtype)), part.per_query(scaled), part.per_query(delta)
        across = part.pack(q), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), *of_rows
        of_queries = functools.partial(backward.queries_backward, settings, _kinds(part.rows), part.name)
        of_keys = functools.partial(backward.keys_backward, settings, _kinds(part.columns), part.name)
        dq, d_slopes = launch(f"{part.name} dq", of_queries, _table(part.rows), x, *across)
        dk, dv = launch(f"{part.name} dk dv", of_keys, _table(part.columns), x, *across)
        dk, dv = (_of_key_heads(a, part.per_kv) for a in (dk, dv))
        if slopes is not None:
            d_slopes = part.unpack(d_slopes)[..., 0].sum(axis=(0, 1))
        return part.unpack(dq), dk.astype(k.dtype), dv.astype(v.dtype), d_slopes

    @jax.custom_vjp
    def attend(operands: Any, x: Indices) -> Result:
        return _finished(*forwards(operands, x))

    def save(operands: Any, x: Indices) -> tuple[Result, Any]:
        out, lse = forwards(operands, x)
        return _finished(out, lse), (operands, x, out, lse)

    def pull(saved: Any, cotangents: Result) -> Any:
        return backwards(*saved, *cotangents), None

    attend.defvjp(save, pull)
    return attend


def _of_key_heads(x: jax.Array, groups: int) -> jax.Array:
    """[B, K · groups, places, H] → [B, places, K, H]: what groups of query heads found of one key head."""
    if groups > 1:
        x = x.reshape(x.shape[0], -1, groups, *x.shape[2:]).sum(axis=2)
    return x.transpose(0, 2, 1, 3)


def _finished(out: jax.Array, lse: jax.Array) -> Result:
    return out.astype(jnp.float32), lse


def _kinds(found: Steps) -> tuple[bool, bool]:
    return found.full > 0, found.partial > 0


def _table(found: Steps) -> Table:
    rows, blocks = (jnp.asarray(x.reshape(found.lists, found.length)) for x in (found.rows, found.blocks))
    return Table(rows, blocks)


def packed(per_kv: int) -> int:
    """How many of the query heads of a key head lie in one tile, each with 128 queries at least."""
    return max(p for p in range(1, MOST_QUERIES // LANES + 1) if per_kv % p == 0)


def choose(plan: Plan, part: Part, heads: int) -> tuple[int, int]:
    """The tile of the fewest cycles: queries of each of ``heads`` heads, and keys."""
    queries = _queries(plan, part)
    (source,) = part.sources
    every = _sizes(queries, source.slots, heads)
    sizes = [size for size in every if _most(part, queries, size) <= MOST_STEPS]
    if len(sizes) <= 1:
        return every[-1]
    price = {size: _cycles(tables(part, plan.n_q, *size)[0], heads) for size in sizes}
    return min(price, key=lambda size: price[size])


def _cycles(found: Tables, heads: int) -> float:
    return found.visits * (STEP + PAIR * heads * found.tile * found.block)


def _sizes(queries: int, slots: int, heads: int) -> list[tuple[int, int]]:
    """Tiles worth a look, the largest last."""
    of_q = {_fitted(max(size // heads, LANES), queries) for size in SIZES}
    of_k = {_fitted(size, slots) for size in SIZES}
    every = [(q, k) for q in of_q for k in of_k if q * k * heads <= LARGEST]
    return sorted(every, key=lambda size: (size[0] * size[1], size))


def _most(part: Part, queries: int, size: tuple[int, int]) -> int:
    """An upper bound on the steps by rows and on those by columns, without making them."""
    (source,) = part.sources
    return cells(part, queries, *size) + max(-(-queries // size[0]), -(-source.slots // size[1]))


def _fitted(size: int, places: int) -> int:
    """No more than there is, in multiples of the lanes."""
    return int(min(-(-size // LANES), -(-places // LANES)) * LANES)


def unavailable(platform: str, chip: str | None = None) -> str | None:
    """Why the kernels do not run here, or are not compiled for a chip that is not here."""
    if platform != "tpu":
        return f"it runs on TPUs, not on {platform}"
    if chip is None:
        kind = jax.devices()[0].device_kind
        chip = KINDS.get(kind, kind)
    known = (*CHIPS, INTERPRETED_TPU.chip)
    return None if chip in known else f"it runs on TPUs {', '.join(CHIPS)}, and this one is {chip}"


def fits(head_dim: int, v_head_dim: int) -> bool:
    """Whether the kernels take heads of these sizes."""
    return max(head_dim, v_head_dim) <= MOST_HEAD_DIM


def _operands(target: Target) -> str | None:
    """Why the kernels do not take these operands."""
    if target.dtype not in DTYPES:
        return f"it computes in {' and '.join(DTYPES)}, not {target.dtype}"
    if not fits(target.head_dim, target.v_head_dim):
        return f"heads are of {MOST_HEAD_DIM} at most, not {target.head_dim} and {target.v_head_dim}"
    return "it knows no bias" if target.has_bias else None


def refused(plan: Plan, num_heads: int, num_kv_heads: int) -> str | None:
    """Why the kernels do not compute a plan, whatever the operands."""
    for group in plan.groups:
        heads = packed(pack_heads(group.heads, num_heads, num_kv_heads).per_kv)
        for part in (p for b in group.branches for p in b.parts):
            why = calls.refused(part)
            if why is None and part.sources:
                why = _too_long(part, _queries(plan, part), heads)
            if why is not None:
                return why
    return None


def _too_long(part: Part, queries: int, heads: int) -> str | None:
    (source,) = part.sources
    most = _most(part, queries, _sizes(queries, source.slots, heads)[-1])
    if most <= MOST_STEPS:
        return None
    return f"it would take {most:,} steps, of which scalar memory holds {MOST_STEPS:,}"


def _queries(plan: Plan, part: Part) -> int:
    return plan.n_q if part.layout.queries is None else part.layout.queries.size


BACKEND = PallasTpuBackend()
