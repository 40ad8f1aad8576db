"""The GPU kernels' answers, on a machine without a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends.pallas_gpu import forward, pipeline
from tests.conformance.test_pallas_gpu import DOCUMENTS, close, compare, operands
from tests.devices.emulator import emulated  # noqa: F401

RNG = np.random.default_rng(0)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "shared key heads": (
        "causal & (local(40) | global(tokens=[0, 100]))",
        {"n": 140, "heads": 4, "batch": 2},
        {"kv_lengths": np.asarray([140, 51], np.int32), "sinks": np.ones(4, np.float32)},
    ),
    "reordered": ("causal & (local(30) | strided(9))", {"n": 300, "n_q": 130}, {}),
    "inputs": (
        DOCUMENTS,
        {"n": 200, "head_dim": 128, "dtype": "float16"},
        {"doc": np.sort(RNG.integers(0, 5, (1, 200)), axis=1), "softcap": 5.0, "scale": -0.3},
    ),
    "slopes": (
        "causal & (local(50) | strided(9))",
        {"n": 260, "n_q": 130, "heads": 2, "kv_heads": 1},
        {"slopes": jnp.asarray([0.3, -0.02], jnp.float32), "softcap": 5.0},
    ),
    "rows without keys": ("rows([5, 200])", {"n": 300}, {}),
    "a late offset": (
        "causal & local(90)",
        {"n": 300, "n_q": 40, "head_dim": 40, "v_dim": 72},
        {"q_offset": jnp.int32(100)},
    ),
}
"""For each the spec, the shape and arguments of a call."""


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("name", CASES)
def test_kernels(name: str) -> None:
    spec, shape, arguments = CASES[name]
    compare(spec, operands(**shape), **arguments)


FAULTS = {
    "a buffer is filled while it is read": (
        "ring",
        lambda shape, *buffers: pipeline.ring(dataclasses.replace(shape, groups=1), *buffers),
        "opened twice",
    ),
    "a program reads beyond its keys": (
        "row_of",
        lambda x: (row := pipeline.row_of(x))._replace(first=row.first + 1),
        "of 6",
    ),
    "a partial tile counts as full": (
        "row_of",
        lambda x: (row := pipeline.row_of(x))._replace(whole=row.count),
        "Mismatch",
    ),
}


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six blocks of keys go through four stages."""
    what, instead, told = FAULTS[name]
    monkeypatch.setattr(forward, what, instead)
    q, k, v = operands(768, 128, heads=1, kv_heads=1)
    with pytest.raises(AssertionError, match=told):
        close(pd.compile("causal", backend="pallas_gpu")(q, k, v), pd.reference("causal", q, k, v), 1e-2)
