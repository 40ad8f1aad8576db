"""What the kernels share: a program's row of the tables, and the blocks that flow through shared memory.

A `Ring` is a few stages of buffers. The last warpgroup fills it, as far ahead as there are stages; the others
wait until a stage is ``ready``, and say when they no longer need it and it is ``free``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patterndsl.backends.pallas_gpu.mosaic import pallas

GROUP = 64  # queries of a warpgroup: the rows of one tensor-core instruction
SWIZZLE = 128  # bytes


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a kernel is cut: ``groups`` warpgroups of 64 queries, ``block`` keys a step, ``stages`` of these in
    flight."""

    groups: int
    block: int
    stages: int

    @property
    def tile(self) -> int:
        """Queries of a program."""
        return self.groups * GROUP


class Ring(NamedTuple):
    """``buffers`` [stages, …] each. As a kernel's scratch the types of all this, within it the references."""

    buffers: tuple[Any, ...]
    ready: Any
    free: Any


def ring(shape: Shape, *buffers: Any) -> Ring:
    """Scratch for a ring that is read by all warpgroups but the last."""
    _, plgpu = pallas()
    ready = plgpu.Barrier(num_arrivals=len(buffers), num_barriers=shape.stages)
    return Ring(buffers, ready, plgpu.Barrier(num_arrivals=shape.groups, num_barriers=shape.stages))


def swizzled(shape: tuple[int, ...], dtype: Any) -> Any:
    """Scratch from which the tensor cores read."""
    _, plgpu = pallas()
    transforms = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(SWIZZLE))
    return plgpu.SMEM(shape, dtype, transforms=transforms)


class Row(NamedTuple):
    """The row of the tables that a program works off: its ``tile``, and ``count`` blocks of which the first
    ``whole`` are full. ``table`` is the sequence's own, or that of all."""

    batch: Any
    table: Any
    tile: Any
    first: Any
    whole: Any
    count: Any


def row_of(x: Any) -> Row:
    """The row of the program that asks."""
    batch, row = lax.axis_index("batch"), lax.axis_index("row")
    table = of_batch(x.rows, batch)
    return Row(batch, table, *(x.rows[table, row, i] for i in range(4)))


def of_batch(ref: Any, batch: Any) -> Any:
    """The row of a table of all sequences, or of the one that they share."""
    return batch if ref.shape[0] > 1 else 0


def split(groups: int, compute: Callable[[Any], None], copy: Callable[[], None], registers: int) -> None:
    """The program: ``groups`` warpgroups compute, with so many registers a thread, and one copies."""
    pl, plgpu = pallas()
    group = lax.axis_index("group")

    @pl.when(group < groups)
    def _() -> None:
        plgpu.set_max_registers(registers, action="increase")
        compute(group)

    @pl.when(group == groups)
    def _() -> None:
        plgpu.set_max_registers(40, action="decrease")
        copy()


def fill(
    shape: Shape, steps: Any, rings: Sequence[Ring], sources: Callable[[Any], Sequence[Sequence[Any]]]
) -> None:
    """What the copying warpgroup does: for each step, into the next stage of each ring, its ``sources``."""
    pl, plgpu = pallas()

    def step(j: Any, _: None) -> None:
        slot = lax.rem(j, jnp.int32(shape.stages))
        for into, refs in zip(rings, sources(j), strict=True):

            @pl.when(j >= shape.stages)
            def _(into: Ring = into) -> None:
                plgpu.barrier_wait(into.free.at[slot])

            for ref, buffer in zip(refs, into.buffers, strict=True):
                plgpu.copy_gmem_to_smem(ref, buffer.at[slot], into.ready.at[slot])

    lax.fori_loop(0, steps, step, None)


def launch(
    body: Callable[..., None],
    operands: tuple[Any, ...],
    out: Any,
    scratch: Any,
    grid: tuple[int, int, int],
    threads: int,
) -> Any:
    """A kernel of ``threads`` warpgroups over (heads, rows, batch). Operands may be trees with None."""
    _, plgpu = pallas()

    leaves, tree = jax.tree.flatten(operands)
    number = len(leaves)

    def flat(*refs: Any) -> None:
        body(*jax.tree.unflatten(tree, refs[:number]), *refs[number:])

    call: Mapping[str, Any] = {
        "out_type": out,
        "scratch_types": scratch,
        "grid": grid,
        "grid_names": ("head", "row", "batch"),
        "num_threads": threads,
        "thread_name": "group",
        "compiler_params": plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane
        ),
    }
    return plgpu.kernel(flat, **call)(*leaves)


def shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    """What a kernel writes."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
