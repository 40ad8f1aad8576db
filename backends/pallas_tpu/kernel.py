"""What the kernels of the forward and the backward pass share: their grid, masks and logits.

Scores lie with their keys on the sublanes and their queries on the lanes, [keys, queries]. So what there is
for each query (top, sum, log-sum-exp, position) is one row, which meets scores without a move between lanes,
and reductions over keys add whole registers. The query heads that share a key head lie beside each other
on the lanes, and share the mask.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.pallas.predicate import Frame, Lanes, keep
from patterndsl.backends.pallas_tpu.steps import FIRST, FULL, KINDS, LAST, PARTIAL
from patterndsl.ir.expr import Expr

LOG2E = math.log2(math.e)
LEAST = -3.0e38  # below every logit, and finite, so that a query without keys makes no NaN
LANES = 128
VMEM = 2**20 * 48
"""Bytes that a kernel may ask for: a v5p gives 64 MiB to a kernel at most, others more."""


def pallas() -> tuple[Any, Any]:
    """The modules `pallas` and `pallas.tpu`, imported where a kernel is made."""
    names = "jax.experimental.pallas", "jax.experimental.pallas.tpu"
    pl, pltpu = (importlib.import_module(name) for name in names)
    return pl, pltpu


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed when a kernel is compiled: the ``predicate`` over positions and the number of ``inputs``
    that it reads, by name; tiles of ``block_q`` queries of ``heads`` heads that share a key head, and of
    ``block_k`` keys; ``lengths``: sequences end at run time; ``tokens``: keys there are; ``reordered``:
    positions are looked up; ``gaps``: blocks may hold places without a key; ``per_kv``: how many groups of
    heads share a key head; ``kinds``: the kinds of tiles there are; ``length`` of each list of steps;
    ``interpret``: as `pallas_call` takes it."""

    predicate: Expr
    inputs: tuple[str, ...]
    scale: float
    softcap: float | None
    block_q: int
    block_k: int
    heads: int
    per_kv: int
    lengths: bool
    tokens: int
    reordered: bool
    gaps: bool
    slopes: bool
    interpret: Any

    @property
    def queries(self) -> int:
        """The lanes of a tile."""
        return self.heads * self.block_q


class Table(NamedTuple):
    """The steps of a kernel, int32 [lists, length] each (`steps`)."""

    rows: jax.Array
    blocks: jax.Array


class Indices(NamedTuple):
    """Numbers of a call. ``scalars`` int32 [B · 2]: the first query's position and the sequence's length;
    ``slopes`` float32 [heads] or None. ``queries``, ``keys`` int32 [B | 1, numbers, places] or None: the
    positions of reordered parts, −1 where a place is empty, and then the inputs at them."""

    scalars: jax.Array
    slopes: jax.Array | None
    queries: jax.Array | None
    keys: jax.Array | None


class Tile(NamedTuple):
    """Where a step is: the sequence, the group of heads, and the first query and key place."""

    batch: Any
    head: Any
    first_q: Any
    first_k: Any


class Logits(NamedTuple):
    """``value`` of pairs, −inf where not kept, which times ``factor`` have an exponential of base 2;
    ``capped`` the soft-capped score, ``distance`` ALiBi's, each None where there is none."""

    value: Any
    factor: float
    capped: Any
    distance: Any


def product(a: Any, b: Any, contract: tuple[int, int]) -> Any:
    """A matrix product in float32; of float32 operands as exact as these are."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def logits(settings: Settings, s: Any, x: Indices, tile: Tile, rows: tuple[Any, Any], apply: bool) -> Logits:
    """The logits of scores ``s`` [keys, queries]; ``rows``: the refs of `Indices.queries` and ``keys`` for
    the tile. ``apply``: whether the predicate is asked, and whether keys exist."""
    factor, capped, distance = settings.scale * LOG2E, None, None
    if settings.softcap is not None:
        s = capped = settings.softcap * jnp.tanh(s * (settings.scale / settings.softcap))
        factor = LOG2E
    elif settings.scale <= 0 or settings.slopes:
        s, factor = s * settings.scale, LOG2E
    if not apply and not settings.slopes:
        return Logits(s, factor, capped, None)
    q, k = _positions(settings, x, tile, rows)
    if settings.slopes:
        gap = abs(q - k).wide((0, 1)).astype(jnp.float32)
        distance = _repeated(settings, gap)
        first, numbers = tile.head * settings.heads, x.slopes
        assert numbers is not None
        slopes = [jnp.full((1, settings.block_q), numbers[first + g]) for g in range(settings.heads)]
        s = s - _beside(slopes) * distance
    if apply:
        kept = _kept(settings, x, tile, q, k, rows)
        if kept is not None:
            s = jnp.where(_repeated(settings, kept), s, -jnp.inf)
    return Logits(s, factor, capped, distance)


def _positions(settings: Settings, x: Indices, tile: Tile, rows: tuple[Any, Any]) -> tuple[Lanes, Lanes]:
    frame = Frame((settings.block_k, settings.block_q), flat=False)
    offset = Lanes(x.scalars[2 * tile.batch], (), frame)
    if settings.reordered:
        return _read(rows[0], 0, 1, frame) + offset, _read(rows[1], 0, 0, frame)
    places = (lax.broadcasted_iota(jnp.int32, frame.shape_of((axis,)), axis) for axis in (1, 0))
    q, k = (Lanes(at, (axis,), frame) for at, axis in zip(places, (1, 0), strict=True))
    return q + Lanes(tile.first_q, (), frame) + offset, k + Lanes(tile.first_k, (), frame)


def _read(ref: Any, number: int, axis: int, frame: Frame) -> Lanes:
    """A row of numbers, for queries along the lanes, for keys turned to the sublanes."""
    row = ref[0, number : number + 1, :]
    if axis == 1:
        return Lanes(row, (1,), frame)
    return Lanes(jnp.broadcast_to(row, (LANES, frame.shape[0])).T[:, :1], (0,), frame)


def _kept(settings: Settings, x: Indices, tile: Tile, q: Lanes, k: Lanes, rows: tuple[Any, Any]) -> Any:
    first = int(settings.reordered)
    values = {
        name: (_read(rows[0], first + i, 1, q.frame), _read(rows[1], first + i, 0, q.frame))
        for i, name in enumerate(settings.inputs)
    }
    kept: Any = keep(settings.predicate, q, k, values)
    if settings.gaps:
        kept = kept & (k >= 0 if settings.reordered else k < settings.tokens)
    if settings.lengths:
        kept = kept & (k < Lanes(x.scalars[2 * tile.batch + 1], (), q.frame))
    return kept.wide((0, 1)) if isinstance(kept, Lanes) else None


def _repeated(settings: Settings, pairs: Any) -> Any:
    """[keys, block_q] for each of the heads."""
    return _beside([pairs] * settings.heads)


def _beside(each: Sequence[Any]) -> Any:
    return each[0] if len(each) == 1 else jnp.concatenate(each, axis=1)


def visit(
    settings: Settings,
    x: Indices,
    tile: Tile,
    what: Any,
    kinds: tuple[bool, bool],
    first: Callable[[], None],
    step: Callable[[bool], None],
    last: Callable[[], None],
) -> None:
    """Run a step as what it is. ``kinds``: whether there are full and partial tiles at all."""
    pl, _ = pallas()

    pl.when((what & FIRST) != 0)(first)
    full, partial = (what & FULL) != 0, (what & PARTIAL) != 0
    masked = partial
    if settings.lengths:
        length = x.scalars[2 * tile.batch + 1]
        # Beyond the end nothing is kept; a tile across it is masked, and every tile of reordered keys.
        cut = full if settings.reordered else full & (tile.first_k + settings.block_k > length)
        masked, full = partial | cut, full & jnp.logical_not(cut)
        if not settings.reordered:
            masked = masked & (tile.first_k < length)
    if kinds[0]:
        pl.when(full)(functools.partial(step, False))
    if kinds[1] or settings.lengths:
        pl.when(masked)(functools.partial(step, True))
    pl.when((what & LAST) != 0)(last)


class Spec(NamedTuple):
    """An operand or result: blocks of ``shape``, which begin at ``at(batch, head, row, block)``, in blocks.
    ``each_step``: another one each step; else one a row."""

    shape: tuple[int, ...]
    at: Callable[[Any, Any, Any, Any], tuple[Any, ...]]
    each_step: bool = False


def call(
    settings: Settings,
    name: str,
    body: Callable[..., None],
    table: Table,
    x: Indices,
    operands: Sequence[tuple[jax.Array, Spec]],
    results: Sequence[tuple[Any, Spec]],
    scratch: Sequence[tuple[int, ...]],
    grid: tuple[int, int],
    flops: int,
) -> Any:
    """A kernel over (batch, heads), each through the steps of the table. ``body`` takes the indices, (batch,
    head, row, block, what), the refs of operands, results, and float32 scratch of these shapes."""
    pl, pltpu = pallas()
    prefetched = [table.rows.reshape(-1), table.blocks.reshape(-1), x.scalars]
    if x.slopes is not None:
        prefetched.append(x.slopes)
    lists, length = table.rows.shape

    def place(spec: Spec) -> Any:
        def index(b: Any, h: Any, c: Any, s: Any, rows: Any, blocks: Any, *_: Any) -> tuple[Any, ...]:
            at = c * length + s
            return spec.at(b, h, rows[at], lax.div(blocks[at], jnp.int32(KINDS)))

        return pl.BlockSpec(spec.shape, index)

    def kernel(rows: Any, blocks: Any, scalars: Any, *refs: Any) -> None:
        slopes, refs = (refs[0], refs[1:]) if x.slopes is not None else (None, refs)
        at = pl.program_id(2) * length + pl.program_id(3)
        b, h, block = pl.program_id(0), pl.program_id(1), blocks[at]
        where = (b, h, rows[at], lax.div(block, jnp.int32(KINDS)), lax.rem(block, jnp.int32(KINDS)))
        body(Indices(scalars, slopes, None, None), where, *refs)

    turns = math.prod(grid) * lists * length
    pairs = turns * settings.queries * settings.block_k
    moved = sum(
        a.dtype.itemsize * (turns * math.prod(spec.shape) if spec.each_step else a.size)
        for a, spec in (*operands, *results)
    )
    cost = pl.CostEstimate(flops=flops * pairs, transcendentals=pairs, bytes_accessed=moved)
    run = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(prefetched),
            grid=(*grid, lists, length),
            in_specs=[place(spec) for _, spec in operands],
            out_specs=[place(spec) for _, spec in results],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=[shape for shape, _ in results],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM
        ),
        interpret=settings.interpret,
        cost_estimate=cost,
        name=name,
    )
    return run(*prefetched, *(a for a, _ in operands))


def index_operands(settings: Settings, x: Indices, by_column: bool) -> list[tuple[jax.Array, Spec]]:
    """The integers of queries and keys as operands."""
    found = []
    for values, size, of_row in (
        (x.queries, settings.block_q, not by_column),
        (x.keys, settings.block_k, by_column),
    ):
        if values is not None:
            shared = values.shape[0] == 1
            found.append(
                (
                    values,
                    Spec(
                        (1, values.shape[1], size),
                        functools.partial(_at_place, shared=shared, of_row=of_row),
                        not of_row,
                    ),
                )
            )
    return found


def _at_place(b: Any, h: Any, row: Any, block: Any, *, shared: bool, of_row: bool) -> tuple[Any, ...]:
    return 0 if shared else b, 0, row if of_row else block


def shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    """What a kernel writes."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
