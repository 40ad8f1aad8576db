"""Our masks and attention beside JAX's own, where both can say the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash

import patterndsl as pd

LENGTHS = [(1, 1), (7, 7), (64, 64), (40, 65), (16, 130)]


def dense(mask: splash.Mask) -> np.ndarray:
    return np.asarray(mask[:, :])


@pytest.mark.parametrize(("n_q", "n"), LENGTHS)
def test_causal_is_splash_causal_with_an_offset(n_q: int, n: int) -> None:
    theirs = splash.CausalMask((n_q, n), offset=n - n_q)
    assert (pd.causal.mask(n, n_q) == dense(theirs)).all()


@pytest.mark.parametrize(("n_q", "n"), LENGTHS)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (2, 5), (None, 1), (4, None)])
def test_local_is_splash_local(n_q: int, n: int, left: int | None, right: int | None) -> None:
    theirs = splash.LocalMask((n_q, n), (left, right), offset=n - n_q)
    assert (pd.local(left=left, right=right).mask(n, n_q) == dense(theirs)).all()


@pytest.mark.parametrize("n", [1, 7, 64, 100])
@pytest.mark.parametrize("size", [1, 4, 16])
def test_chunked_is_splash_chunked_causal(n: int, size: int) -> None:
    theirs = splash.ChunkedCausalMask((n, n), chunk_size=size)
    assert ((pd.causal & pd.chunked(size)).mask(n) == dense(theirs)).all()


@pytest.mark.parametrize("n", [7, 64])
def test_the_algebra_is_splash_s(n: int) -> None:
    a, b = splash.CausalMask((n, n)), splash.LocalMask((n, n), (3, 3), offset=0)
    ours_a, ours_b = pd.causal, pd.local(left=3, right=3)
    assert ((ours_a & ours_b).mask(n) == dense(a & b)).all()
    assert ((ours_a | ours_b).mask(n) == dense(a | b)).all()


def arrays(n_q: int, n: int, heads: int = 4, kv_heads: int = 2, dtype: str = "float32") -> list[jax.Array]:
    rng = np.random.default_rng(0)
    shapes = [(2, n_q, heads, 16), (2, n, kv_heads, 16), (2, n, kv_heads, 16)]
    return [jnp.asarray(rng.standard_normal(s), dtype) for s in shapes]


def theirs(q: jax.Array, k: jax.Array, v: jax.Array, **how: object) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(q, k, v, **how)


def compiled(spec: str, *arrays: jax.Array, **arguments: object) -> jax.Array:
    return pd.compile(spec)(*arrays, **arguments)


@pytest.mark.parametrize("run", [pd.reference, compiled], ids=["reference", "compiled"])
@pytest.mark.parametrize("n", [1, 33, 130])
def test_attention_is_dot_product_attention(run, n: int) -> None:
    q, k, v = arrays(n, n)
    rng = np.random.default_rng(1)
    bias = jnp.asarray(rng.standard_normal((2, 4, n, n)), jnp.float32)
    np.testing.assert_allclose(run("full", q, k, v), theirs(q, k, v), atol=2e-5)
    np.testing.assert_allclose(run("causal", q, k, v), theirs(q, k, v, is_causal=True), atol=2e-5)
    np.testing.assert_allclose(run("full", q, k, v, bias=bias), theirs(q, k, v, bias=bias), atol=2e-5)
    np.testing.assert_allclose(
        run("local(left=5, right=2)", q, k, v, scale=0.3),
        theirs(q, k, v, local_window_size=(5, 2), scale=0.3),
        atol=2e-5,
    )
    lengths = jnp.asarray([n, max(1, n // 2)])
    np.testing.assert_allclose(
        run("full", q, k, v, kv_lengths=lengths),
        theirs(q, k, v, key_value_seq_lengths=lengths),
        atol=2e-5,
    )


def test_log_sum_exp_is_theirs() -> None:
    q, k, v = arrays(20, 20, heads=2)
    try:
        out, lse = theirs(q, k, v, is_causal=True, return_residual=True)  # from jax 0.6
    except TypeError:
        pytest.skip("this jax returns no residual")
    ours, ours_lse = pd.reference("causal", q, k, v, return_lse=True)
    np.testing.assert_allclose(ours, out, atol=2e-5)
    np.testing.assert_allclose(ours_lse, lse, atol=2e-5)
