"""Random specs: the mask is the brute-force predicate, and attention is the reference, with its gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

import patterndsl as pd
from tests.strategies import LONGEST, centroid_values, specs

TOLERANCE = 2e-5
# Every example compiles; shrinking a failure would take longer than reading it.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
ANY = specs(choice=True)
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)


def operands(n_q: int, n: int, seed: int, heads: int = 2, kv_heads: int = 1) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = [(1, n_q, heads, 8), (1, n, kv_heads, 8), (1, n, kv_heads, 4), (1, n_q, heads, 4)]
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def check(spec: pd.Spec, n: int, n_q: int, blocks: tuple[int, int] | None) -> None:
    kinds, labels = spec.module.inputs, jnp.asarray(np.arange(n) * 3 // n)
    arguments = {name: labels for name, kind in kinds.items() if kind == "token"}
    if arguments:
        n_q = min(n_q, n)  # an input has a value only for positions among the keys
    arguments |= centroid_values([spec.bind(n)], head_dim=8)
    q, k, v, weights = operands(n_q, n, seed=n)
    attention = pd.compile(spec, block_sizes=blocks)
    try:
        attention.plan(n, n_q, num_heads=2)
    except pd.SpecError as error:
        assert error.codes == ("E309",)  # an input's multiple need not fit 32 bits
        reject()

    def ours(q, k, v):
        out, lse = attention(q, k, v, return_lse=True, **arguments)
        return jnp.sum(out * weights) + 0.1 * jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0)), (out, lse)

    def reference(q, k, v):
        out, lse = pd.reference(spec, q, k, v, return_lse=True, **arguments)
        return jnp.sum(out * weights) + 0.1 * jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0)), (out, lse)

    (_, (out, lse)), grads = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(q, k, v)
    (_, (want, want_lse)), want_grads = jax.jit(jax.value_and_grad(reference, (0, 1, 2), has_aux=True))(
        q, k, v
    )
    np.testing.assert_allclose(out, want, atol=TOLERANCE)
    np.testing.assert_allclose(lse, want_lse, atol=TOLERANCE)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, atol=TOLERANCE * max(1.0, float(jnp.abs(expected).max())))
    if spec.module.main.holds_choice:
        return
    empty = spec.slots(n, n_q, inputs=arguments).counts.sum(1) == 0
    assert np.isneginf(np.asarray(lse)[0][empty]).all() and (np.asarray(out)[0][empty] == 0).all()


@settings(RELAXED, max_examples=10)
@given(ANY, st.integers(1, 48), st.integers(1, 60), st.sampled_from([None, (4, 4), (8, 4), (16, 8)]))
def test_attention_is_the_reference(spec: pd.Spec, n: int, n_q: int, blocks: tuple[int, int] | None) -> None:
    check(spec, n, n_q, blocks)


@pytest.mark.slow
@settings(RELAXED, max_examples=75)
@given(ANY, st.integers(1, LONGEST), st.integers(1, LONGEST), st.sampled_from([None, (16, 16), (32, 64)]))
def test_attention_is_the_reference_up_to_300(
    spec: pd.Spec, n: int, n_q: int, blocks: tuple[int, int] | None
) -> None:
    check(spec, n, n_q, blocks)
