"""Online k-means of `cluster`'s centroids, against a loop over the vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd


def moved(centroids: Any, x: Any, decay: float) -> Any:
    """One head: centroids [k, H], the vectors that count [T, H]."""
    members: list[list[Any]] = [[] for _ in centroids]
    for vector in x.astype(np.float64):
        unit = vector / np.linalg.norm(vector)
        members[int(np.argmax([unit @ c / np.linalg.norm(c) for c in centroids]))].append(unit)
    return [
        c if not m else decay * c + (1 - decay) * np.mean(m, axis=0)
        for c, m in zip(centroids, members, strict=True)
    ]


def test_update_centroids() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 30, 3, 4)).astype(np.float32)  # [B, T, N, H]
    mu = rng.standard_normal((3, 5, 4)).astype(np.float32) * 7
    mu[:, 2] = -np.abs(mu[:, 2])
    x = np.where(np.arange(3)[:, None] == 1, np.abs(x), x)  # so that the third centroid of a head has none
    real = np.arange(30) < np.array([[30], [11]])
    found = jax.jit(pd.update_centroids)(mu, x, 0.9, mask=real)
    for h in range(3):
        np.testing.assert_allclose(found[h], moved(mu[h], x[:, :, h][real], 0.9), atol=1e-5)
    np.testing.assert_array_equal(found[1, 2], mu[1, 2])
    together = pd.update_centroids(mu[0], x)
    np.testing.assert_allclose(together, moved(mu[0], x.reshape(-1, 4), 0.999), atol=1e-5)
    x[0, 0], x[0, 1], real[:] = np.nan, 0, True  # neither has a direction
    without = pd.update_centroids(mu, x)
    real[0, :2] = False
    np.testing.assert_allclose(without, pd.update_centroids(mu, x, mask=real), atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    for centroids, x in (((5, 4), (30, 3)), ((3, 5, 4), (30, 2, 4)), ((4,), (30, 4))):
        with pytest.raises(pd.SpecError, match=r"nor \[N, k, H\]"):
            pd.update_centroids(jnp.zeros(centroids), jnp.zeros(x))
    with pytest.raises(pd.SpecError, match="floating-point"):
        pd.update_centroids(jnp.zeros((5, 4)), jnp.zeros((30, 4), int))
    with pytest.raises(pd.SpecError, match="a share"):
        pd.update_centroids(jnp.zeros((5, 4)), jnp.zeros((30, 4)), decay=2)
