"""The process in which kernels are compiled: reads what to do from its input, writes a line for each kernel
that it begins and one for each that it has done."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from patterndsl.backends.launches import Launch, launches
from patterndsl.devices import Case, Compiled, Device, Toolchain, toolchain


def main(path: Path) -> None:
    """Compile the kernels of all cases, without those that are done."""
    cases, device, only_lower, seconds, done = pickle.load(sys.stdin.buffer)
    tools = toolchain(device)
    mesh = tools.mesh(device)
    with path.open("a") as results, jax.sharding.use_abstract_mesh(mesh.abstract_mesh):

        def write(case: int, **result: Any) -> None:
            print(json.dumps({"case": case, **result}), file=results, flush=True)

        for number, case in enumerate(cases):
            for launch in kernels(case, device, mesh):
                if launch.name in done[number]:
                    continue
                write(number, name=launch.name)
                signal.setitimer(signal.ITIMER_REAL, seconds)
                made = compiled(launch, tools, mesh, only_lower)
                signal.setitimer(signal.ITIMER_REAL, 0)
                found = {"text": made.text, "resources": made.resources, "error": made.error}
                write(number, name=made.name, **found)


def kernels(case: Case, device: Device, mesh: Any) -> list[Launch]:
    """What a call launches, forward and backward."""
    attention = case.attention.on(device)
    operands, inputs = case.shape.abstract(attention)
    make: Any = jax.ShapeDtypeStruct
    arrays = {**inputs, **{name: make(*of) for name, of in case.arrays.items()}}

    def both(operands: Any, arrays: Any) -> Any:
        def forward(q: Any, k: Any, v: Any) -> Any:
            return attention(q, k, v, **arrays, **case.given)

        out, pull = jax.vjp(forward, *operands)
        return pull(out)

    with launches() as found:
        jax.eval_shape(both, *placed((operands, arrays), mesh))
    return list(found.values())


def placed(operands: Any, mesh: Any) -> Any:
    """Shapes on the device."""
    make: Any = jax.ShapeDtypeStruct
    whole: Any = PartitionSpec
    where = NamedSharding(mesh, whole())
    return jax.tree.map(lambda x: make(x.shape, x.dtype, sharding=where), operands)


def compiled(launch: Launch, tools: Toolchain, mesh: Any, only_lower: bool) -> Compiled:
    """A kernel, or the compiler's refusal."""
    text = ""
    try:
        with printed() as output:
            traced = jax.jit(launch.run).trace(*placed(launch.operands, mesh))
            lowered = traced.lower(lowering_platforms=(tools.PLATFORM,))
            text = tools.kernel_text(lowered.compiler_ir("stablehlo")) or ""
            if only_lower:
                return Compiled(launch.name, text)
            made = lowered.compile()
        return Compiled(launch.name, text, tools.resources(made, "".join(output)))
    except Exception as error:  # whatever a compiler finds wrong is its answer
        return Compiled(launch.name, text, error=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """What anything prints within, compilers in C++ too; it is there afterwards."""
    found: list[str] = []
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield found
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            found.append(file.read().decode(errors="replace"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
