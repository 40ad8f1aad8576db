"""Attention in forced layouts, forward and backward, against the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends import Operands, Target
from patterndsl.backends.xla import BACKEND
from patterndsl.ir.resolve import at_length
from patterndsl.plan.orders import order_of
from tests.plan.test_layouts import forced

SLOW = pytest.mark.slow
CASES = [
    ("causal & strided(5)", "residues(5)", 43, 43, (8, 4)),
    pytest.param("strided(4)", "residues(4)", 50, 23, (16, 8), marks=SLOW),
    pytest.param("causal & segments(20, 3, offset=1)", "residues(3, within=20)", 64, 64, (8, 8), marks=SLOW),
    ("causal & fixed(8, 3)", "columns(8, unit=3, shift=1)", 45, 45, (8, 8)),
    ("neighborhood([6, 10], [3, 5], dilation=[1, 2])", "grid((6, 10), (3, 5), (1, 2))", 60, 60, (8, 16)),
    pytest.param(
        "windows([8, 8], 3, shift=2)", "windows((8, 8), (3, 3), (2, 2))", 64, 71, (8, 8), marks=SLOW
    ),
    pytest.param("causal & columns([0, ::9])", "gathered", 45, 20, (4, 8), marks=SLOW),
]


@pytest.mark.parametrize(("text", "order", "n", "n_q", "tile"), CASES)
def test_attention_in_a_forced_layout_is_the_reference(
    text: str, order: str, n: int, n_q: int, tile: tuple[int, int]
) -> None:
    spec = pd.parse(text)
    plan = forced(at_length(spec.module.main, n), order_of(order), n, n_q, n - n_q, tile)
    assert plan.groups[0].branches[0].parts[0].layout.name == order
    rng = np.random.default_rng(n)
    shapes = ((1, n_q, 2, 8), (1, n, 1, 8), (1, n, 1, 8))
    q, k, v = (jnp.asarray(rng.standard_normal(s, np.float32)) for s in shapes)
    kernel = BACKEND.lower(
        dataclasses.replace(plan, num_heads=2, groups=(dataclasses.replace(plan.groups[0], heads=(0, 1)),)),
        Target("cpu", "float32", 1, 2, 1, 8, 8),
    )

    def ours(*x: jax.Array) -> jax.Array:
        ((out, _),) = kernel(Operands(*x, scale=8**-0.5, softcap=None, q_offset=n - n_q))
        return out

    def theirs(*x: jax.Array) -> jax.Array:
        return pd.reference(spec, *x)

    def both(f: Callable[..., jax.Array]) -> list[jax.Array]:
        def loss(*x: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = f(*x)
            return jnp.sum(jnp.sin(out)), out

        gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
        return [out, *gradients]

    for got, expected in zip(both(ours), both(theirs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
