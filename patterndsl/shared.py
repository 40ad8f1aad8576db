"""Keys that are the queries, as `lsh` is published with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


def shared_keys(q: Any, kv_heads: int | None = None) -> jax.Array:
    """The queries [..., T, N, H] divided by their lengths, as keys: k_j = q_j / ‖q_j‖, the shared-QK
    attention of Reformer (Kitaev et al. 2020, arXiv:2001.04451, section 2).

        attention = pd.compile("causal & (lsh(8) | self)")
        out = attention(q, pd.shared_keys(q), v)

    A query of 0 stays 0, and has no gradient; the others have that of the division. The dtype is kept, and
    the lengths are computed in float32 at least. ``kv_heads``: how many heads v has; raises SpecError unless
    these are N, as each query head has keys of its own.

    A query and its key have one direction, and so one bucket of `lsh`, up to rounding: where two buckets are
    about equally near, it may move one of them across. With 64 elements and 256 buckets, a few of a million
    random queries in float32, one of a thousand in float16, and one of a hundred in bfloat16, do not see
    their own key in a given round; `lsh(…) | self` keeps it for them too.
    """
    import jax.numpy as jnp
    import numpy as np

    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.runtime import BadCall
    from patterndsl.patterns.cluster import directions

    q = jnp.asarray(q)
    if q.ndim < 3 or not jnp.issubdtype(q.dtype, jnp.floating):
        reason = f"floating-point queries [..., T, N, H] are needed, not {q.dtype}{list(q.shape)}"
        raise SpecError(BadCall(argument="q", reason=reason))
    if kv_heads is not None and kv_heads != q.shape[-2]:
        reason = f"shared keys need one key head per query head, {q.shape[-2]}, not {kv_heads}"
        advice = "give v as many heads as q, or make keys of their own"
        raise SpecError(BadCall(argument="kv_heads", reason=reason, advice=advice))
    wide = q.astype(jnp.promote_types(q.dtype, jnp.float32))
    nothing = np.finfo(wide.dtype).tiny  # XLA takes what is less for 0, but not everywhere
    some = ~jnp.all(jnp.abs(wide) < nothing, axis=-1, keepdims=True)
    # Of a vector of 0 the length has no derivative: it is replaced before it is divided.
    return jnp.where(some, directions(jnp.where(some, wide, 1)), 0).astype(q.dtype)
