"""The TPU kernels through the TPU's own compiler, on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

import patterndsl as pd
from patterndsl.devices import DEVICES, Case, Compiled, compile_kernels, tpu
from patterndsl.patterns import builtins
from patterndsl.trial import Shape
from tests.cli import patterndsl

CHIPS = ("tpu-v5e", "tpu-v5p", "tpu-v6e")
pytestmark = pytest.mark.skipif(tpu.missing() is not None, reason=str(tpu.missing()))

LENGTHS = {"kv_lengths": ((1,), "int32")}
DOCUMENTS = pd.compile("input doc: token\npattern main = causal & same(doc) & where(q, k: (q - k) % 7 < 3)")
CASES = [
    Case(pd.compile("causal"), Shape(4096, dtype="bfloat16"), arrays=LENGTHS),
    Case(
        pd.compile("causal & (local(128) | strided(64))"),
        Shape(4096, heads=8, kv_heads=1, head_dim=128, dtype="bfloat16"),
    ),
    Case(
        DOCUMENTS,
        Shape(1000, head_dim=80, dtype="float32"),
        given={"softcap": 20.0},
        arrays={"alibi_slopes": ((4,), "float32"), **LENGTHS},
    ),
    Case(pd.compile("causal & local(1024)"), Shape(4096, head_dim=256, dtype="float32")),
]
EVERYDAY = [("tpu-v5e", CASES[:3]), ("tpu-v5p", CASES[1:2]), ("tpu-v6e", CASES[3:])]


def wrong(cases: Sequence[Case], found: Sequence[Sequence[Compiled]]) -> list[str]:
    """What the compiler refused of the cases' kernels."""
    each = zip(cases, found, strict=True)
    return [
        f"{c.attention} {c.shape} {k.name}: {k.error}" for c, its in each for k in its if k.error is not None
    ]


@pytest.mark.parametrize(
    ("chip", "cases"),
    [
        pytest.param(*case, id=case[0], marks=() if i == 0 else pytest.mark.slow)
        for i, case in enumerate(EVERYDAY)
    ],
)
def test_kernels_compile(chip: str, cases: list[Case]) -> None:
    found = compile_kernels(cases, DEVICES[chip])
    assert all(len(kernels) in (3, 6) for kernels in found)
    assert wrong(cases, found) == []
    assert all(k.resources["FLOPs"] and "tpu.matmul" in k.text for kernels in found for k in kernels)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("chip", CHIPS)
def test_every_pattern_compiles(chip: str, dtype: str) -> None:
    """All examples of all patterns that the backend takes, with heads of different sizes in turn."""
    cases = []
    for i, example in enumerate(sorted({e for pattern in builtins().values() for e in pattern.examples})):
        attention = pd.compile(example).on(DEVICES[chip])
        shape = Shape(
            1000, heads=4, kv_heads=(1, 2, 4)[i % 3], head_dim=(32, 64, 128, 256)[i % 4], dtype=dtype
        )
        if attention.pick(shape.plan(attention), shape.target(attention)).name == "pallas_tpu":
            cases.append(Case(attention, shape))
    assert len(cases) > 20
    assert wrong(cases, compile_kernels(cases, DEVICES[chip])) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("chip", CHIPS)
def test_every_case_compiles(chip: str) -> None:
    assert wrong(CASES, compile_kernels(CASES, DEVICES[chip])) == []


TOO_BIG = """
import jax
import patterndsl as pd
from patterndsl.backends.pallas_tpu import kernel
from patterndsl.devices import DEVICES, Case, tpu, worker
from patterndsl.trial import Shape
device = DEVICES["tpu-v5e"]
case = Case(pd.compile("causal"), Shape(4096, heads=1, kv_heads=1, head_dim=256))
kernel.VMEM = 2**22
mesh = tpu.mesh(device)
with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    first, *_ = worker.kernels(case, device, mesh)
    print(first.name, worker.compiled(first, tpu, mesh, False).error)
"""


def test_a_kernel_that_is_too_big_is_refused() -> None:
    """Two blocks each of 1024 keys and values in flight are 4 MiB in float32, and there are 4 in all."""
    environment = {**os.environ, **tpu.environment(DEVICES["tpu-v5e"])}
    ended = subprocess.run(
        [sys.executable, "-c", TOO_BIG], capture_output=True, text=True, env=environment, check=False
    )
    assert "part 0 forward" in ended.stdout and "vmem" in ended.stdout.lower(), ended


def test_the_command_line_prints_kernels_and_what_they_take() -> None:
    shape = ("-n", 256, "--dtype", "bfloat16", "--target", "tpu-v5e")
    printed = patterndsl("compile", "-e", "causal", *shape, "--emit", "mosaic", "--report")
    assert printed.code == 0, printed.err
    assert "// part 0 forward\n" in printed.out and "tpu.matmul" in printed.out
