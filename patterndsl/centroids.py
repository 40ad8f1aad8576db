"""The centroids of `cluster`, moved with the vectors that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


def update_centroids(centroids: Any, x: Any, decay: float = 0.999, *, mask: Any = None) -> jax.Array:
    """The centroids after one step of online k-means, as the Routing Transformer trains them.

    ``centroids`` [k, H] and ``x`` [..., H], queries or keys or both; or, for each head its own, [N, k, H] and
    [..., N, H]. Vectors are divided by their lengths, and each belongs to the centroid whose direction has
    the largest product with it (the lower of equals). A centroid c becomes decay·c + (1 − decay)·(the mean of
    its vectors), or stays as it is where it has none. ``mask``: bool [...] (without the heads), false where a
    vector is padding; those that are 0 or not finite have no part in it either. Works under jit; no gradient
    flows through it. Raises SpecError where shapes do not fit.
    """
    import jax
    import jax.numpy as jnp

    from patterndsl.patterns.cluster import directions

    centroids, x = (jax.lax.stop_gradient(jnp.asarray(a)) for a in (centroids, x))
    _check(centroids, x, decay)
    own, wide = centroids.ndim == 3, jnp.promote_types(centroids.dtype, jnp.float32)
    before = centroids.astype(wide).reshape(-1, *centroids.shape[-2:])  # [N | 1, k, H]
    leading = x.shape[: -2 if own else -1]
    unit = directions(x.astype(wide).reshape(-1, before.shape[0], x.shape[-1]))  # [vectors, N | 1, H]
    counted = jnp.all(jnp.isfinite(unit), axis=-1) & jnp.any(unit != 0, axis=-1)
    if mask is not None:
        counted = counted & jnp.broadcast_to(jnp.asarray(mask, bool), leading).reshape(-1, 1)
    unit = jnp.where(counted[..., None], unit, 0)
    scores = jnp.einsum("tnh,nkh->tnk", unit, directions(before), precision="highest")
    member = jax.nn.one_hot(jnp.argmax(scores, axis=-1), before.shape[1], dtype=wide) * counted[..., None]
    number = jnp.sum(member, axis=0)[..., None]  # [N | 1, k, 1]
    total = jnp.einsum("tnk,tnh->nkh", member, unit, precision="highest")
    moved = decay * before + (1 - decay) * total / jnp.maximum(number, 1)
    return jnp.where(number > 0, moved, before).reshape(centroids.shape).astype(centroids.dtype)


def _check(centroids: jax.Array, x: jax.Array, decay: Any) -> None:
    import jax
    import jax.numpy as jnp

    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import BadCall

    shapes = f"centroids {list(centroids.shape)} and x {list(x.shape)}"
    fit = centroids.ndim in (2, 3) and x.ndim >= centroids.ndim and x.shape[-1] == centroids.shape[-1]
    if not fit or (centroids.ndim == 3 and x.shape[-2] != centroids.shape[0]):
        reason = f"{shapes} are not [k, H] and [..., H], nor [N, k, H] and [..., N, H]"
        raise SpecError(BadCall(argument="centroids, x", reason=reason))
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (centroids, x)):
        reason = f"floating-point arrays are needed: {centroids.dtype}, {x.dtype}"
        raise SpecError(BadCall(argument="centroids, x", reason=reason))
    if not isinstance(decay, jax.Array) and not 0 <= decay <= 1:
        raise SpecError(BadCall(argument="decay", reason=f"a share from 0 to 1 is needed, not {decay}"))
