"""The GPU kernels through the GPU's own compilers, on a machine without one."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

import patterndsl as pd
from patterndsl.devices import DEVICES, Case, Compiled, compile_kernels, cuda
from patterndsl.patterns import builtins
from patterndsl.trial import Shape
from tests.cli import patterndsl

HOPPER = DEVICES["cuda-sm90"]
pytestmark = pytest.mark.skipif(cuda.missing() is not None, reason=str(cuda.missing()))

WINDOW = pd.compile("causal & local(1024)")
REORDERED = pd.compile("causal & strided(64)")
DOCUMENTS = pd.compile("input doc: token\npattern main = causal & same(doc)")
CASES = [
    Case(pd.compile("causal"), Shape(4096, dtype="bfloat16"), arrays={"kv_lengths": ((1,), "int32")}),
    Case(WINDOW, Shape(4096, heads=4, kv_heads=2, head_dim=128, dtype="float16")),
    Case(REORDERED, Shape(4096, dtype="bfloat16")),
    Case(DOCUMENTS, Shape(4096, head_dim=128, dtype="bfloat16"), given={"softcap": 20.0}),
    Case(
        pd.compile("causal"),
        Shape(4096, head_dim=128, dtype="bfloat16"),
        arrays={"alibi_slopes": ((4,), "float32")},
    ),
]
SPILLED = 512
"""Bytes that ``dk dv`` may spill with heads of 128, where two accumulators of 64 × 128 leave no room for two
tiles of scores; half the tile would halve what a tensor-core instruction does. Others must not spill."""
SPILLED_BY_PREDICATE = 128
"""Bytes that a predicate of many operations may drive out of registers, where every pattern is tried:
100 in `dq` of `neighborhood`, 8 in that of `axial`, with heads of 64."""


def wrong(cases: Sequence[Case], found: Sequence[Sequence[Compiled]], spilled: int = 0) -> list[str]:
    """What is not as it should be of the cases' kernels."""
    return [fault for of in zip(cases, found, strict=True) for fault in faults(*of, spilled)]


def faults(case: Case, found: Sequence[Compiled], spilled: int) -> Iterator[str]:
    for kernel in found:
        name = f"{case.attention} {case.shape} {kernel.name}"
        if kernel.error is not None:
            yield f"{name}: {kernel.error}"
            continue
        may = SPILLED if kernel.name.endswith("dk dv") and case.shape.head_dim == 128 else spilled
        if kernel.resources["spill stores"] > may:
            yield f"{name} spills {kernel.resources['spill stores']} bytes"
        if kernel.resources["tensor-core instructions"] < 16:
            yield f"{name} leaves the tensor cores alone"


def test_kernels_compile() -> None:
    found = compile_kernels(CASES, HOPPER)
    assert [len(kernels) for kernels in found] == [3] * len(CASES)
    assert wrong(CASES, found) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(("head_dim", "dtype"), [(64, "bfloat16"), (128, "float16")])
@pytest.mark.parametrize("pattern", sorted(builtins()))
def test_every_pattern_compiles(pattern: str, head_dim: int, dtype: str) -> None:
    """All examples that the backend takes."""
    cases = []
    for example in builtins()[pattern].examples:
        attention = pd.compile(example).on(HOPPER)
        grid = re.search(r"shape=\[(.*?)\]", example)
        n = math.prod(map(int, grid[1].split(","))) if grid else 1000
        shape = Shape(n, heads=4, kv_heads=2, head_dim=head_dim, dtype=dtype)
        if attention.pick(shape.plan(attention), shape.target(attention)).name == "pallas_gpu":
            cases.append(Case(attention, shape))
    if not cases:
        pytest.skip("all are left to XLA")
    found = compile_kernels(cases, HOPPER)
    assert wrong(cases, found, SPILLED_BY_PREDICATE) == []


TOO_BIG = """
import jax
import patterndsl as pd
from patterndsl.backends.pallas_gpu import forward, pipeline
from patterndsl.devices import DEVICES, Case, cuda, worker
from patterndsl.trial import Shape
case = Case(pd.compile("causal"), Shape(4096, dtype="bfloat16"))
forward.shape_for = lambda head_dim: pipeline.Shape(2, 256, 8)
mesh = cuda.mesh(DEVICES["cuda-sm90"])
with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    first, *_ = worker.kernels(case, DEVICES["cuda-sm90"], mesh)
    print(first.name, worker.compiled(first, cuda, mesh, False).error)
"""


def test_a_kernel_that_is_too_big_is_refused() -> None:
    """Eight blocks of 256 keys and values in flight are 512 KiB of shared memory, of which there are 227."""
    environment = {**os.environ, **cuda.environment(HOPPER)}
    ended = subprocess.run(
        [sys.executable, "-c", TOO_BIG], capture_output=True, text=True, env=environment, check=False
    )
    assert "part 0 forward ValueError" in ended.stdout and "shared memory" in ended.stdout, ended


def test_the_command_line_prints_kernels_and_what_they_take() -> None:
    shape = ("-n", 256, "--dtype", "bfloat16", "--target", "cuda-sm90")
    printed = patterndsl("compile", "-e", "causal", *shape, "--emit", "mosaic", "--report")
    assert printed.code == 0, printed.err
    for text in (
        "// part 0 forward\n",
        "// part 0 dk dv\n",
        "mosaic_gpu.arch_major",
        "part 0 dq, on cuda-sm90",
    ):
        assert text in printed.out
    assert "  spill stores              0\n" in printed.out
    refused = patterndsl("compile", "-e", "causal + local(3)", *shape, "--report")
    assert refused.code == 2 and "not by pallas_gpu: it counts every key once" in refused.err
