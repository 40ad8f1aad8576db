"""Queries as keys: `shared_keys`, for `lsh` as Reformer has it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.patterns import builtin
from tests.oracles import chosen

LSH = builtin("lsh")(buckets=8, rounds=3, seed=1)


def of_any_length(shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    lengths = 10.0 ** rng.uniform(-20, 18, (*shape[:-1], 1))
    return (rng.standard_normal(shape) * lengths).astype(np.float32)


def test_keys_are_queries_of_length_one() -> None:
    q = of_any_length((2, 50, 4, 16))
    q[0, 3] = 0
    k = jax.jit(pd.shared_keys)(q)
    length = np.linalg.norm(q.astype(np.float64), axis=-1, keepdims=True)
    np.testing.assert_allclose(k, q / np.where(length > 0, length, 1), atol=1e-6)
    for dtype in ("bfloat16", "float16"):
        low = jnp.asarray(q / length.clip(1) * 100, dtype)  # float16 ends at 65,504
        found = pd.shared_keys(low)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, pd.shared_keys(low.astype(jnp.float32)).astype(dtype))
    (slope,) = jax.vjp(pd.shared_keys, q)[1](jnp.ones_like(k))
    assert np.isfinite(slope).all() and not slope[0, 3].any() and np.asarray(slope)[length[..., 0] > 0].all()


def test_a_query_has_the_bucket_of_its_key() -> None:
    """In every round; but for rounding, which bfloat16 has more of."""
    q = jnp.asarray(of_any_length((4000, 1, 16)))
    rotations = LSH.rotations(16)

    def apart(q: Any) -> float:
        return float(np.mean(LSH.hashed(q, rotations) != LSH.hashed(pd.shared_keys(q), rotations)))

    assert apart(q) == 0
    assert apart(q.astype(jnp.bfloat16)) < 0.01


def test_attention_with_shared_keys() -> None:
    """Against dense attention, with the gradient that queries have as keys; a query keeps itself."""
    rng = np.random.default_rng(2)
    q, v = (rng.standard_normal((1, 40, 2, 16)).astype(np.float32) for _ in range(2))
    q *= 10.0 ** rng.uniform(-1, 1, (1, 40, 2, 1)).astype(np.float32)
    unit = q.astype(np.float64) / np.linalg.norm(q.astype(np.float64), axis=-1, keepdims=True)
    mask = chosen.lsh(q[0], unit[0], LSH.rotations(16))  # [N, T, T]
    assert mask[:, np.arange(40), np.arange(40)].all() and not mask.all()

    def dense(q: Any, v: Any) -> Any:
        k = q / jnp.sqrt(jnp.sum(q * q, axis=-1, keepdims=True))
        scores = jnp.einsum("bqnh,bknh->bnqk", q, k, precision="highest") / 4
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.einsum("bnqk,bknh->bqnh", weights, v, precision="highest")

    attention = pd.compile("lsh(8, rounds=3, seed=1)")

    def shared(q: Any, v: Any) -> Any:
        return attention(q, pd.shared_keys(q, kv_heads=v.shape[-2]), v)

    def value_and_gradient(f: Any) -> Any:
        return jax.jit(lambda q, v: (f(q, v), jax.grad(lambda *x: jnp.sum(jnp.sin(2 * f(*x))), (0, 1))(q, v)))

    found, wanted = (value_and_gradient(f)(q, v) for f in (shared, dense))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(pd.SpecError, match="one key head per query head, 4, not 2"):
        pd.shared_keys(jnp.ones((5, 4, 8)), kv_heads=2)
    for q in (jnp.ones((4, 8)), jnp.ones((5, 4, 8), int)):
        with pytest.raises(pd.SpecError, match="floating-point queries"):
            pd.shared_keys(q)
