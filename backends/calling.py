"""What all backends share: checking a call's arrays, and finishing it (sinks, gates, dtypes, batch axis)."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends import Operands
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall, InputShape
from patterndsl.ir.ranges import INPUTS
from patterndsl.spec import check_dtype, check_inputs, check_names, of_kind

ARGUMENTS = (
    "scale",
    "softcap",
    "sinks",
    "alibi_slopes",
    "bias",
    "q_offset",
    "kv_lengths",
    "gates",
    "return_lse",
)
"""What a call may name beside run-time inputs."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an attention function: its operands, batched and checked, and how to finish it."""

    operands: Operands
    unbatched: bool
    sinks: jax.Array | None
    gates: jax.Array | None
    return_lse: bool
    dtype: Any

    @property
    def lengths(self) -> tuple[int, int]:
        """n keys and n_q queries."""
        return self.operands.k.shape[1], self.operands.q.shape[1]


def on_host(kinds: Mapping[str, str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run-time inputs as arrays, checked while their values can be looked at: integers must fit 32 bits, in
    which they are computed with. Raises SpecError."""
    check_names(tuple(kinds), inputs, ARGUMENTS)
    found = {}
    for name, value in inputs.items():
        found[name] = value = value if isinstance(value, jax.Array) else np.asarray(value)
        check_dtype(name, kinds[name], value.dtype)
        if kinds[name] == "centroids":
            continue
        if isinstance(value, jax.core.Tracer) or np.can_cast(value.dtype, np.int32) or not value.size:
            continue
        host = np.asarray(value)  # JAX's own minimum would be traced, under jit
        if not -(2**31) <= int(host.min()) <= int(host.max()) < 2**31:
            advice = "number them from 0 on, as `numpy.unique(ids, return_inverse=True)` does"
            raise bad(name, "its values do not fit into 32 bits", advice)
    return found


def check_computed(names: Collection[str], inputs: Mapping[str, Any]) -> None:
    """Raise SpecError where an input that the spec computes with, and whose values can be looked at, is too
    large for that in 32 bits."""
    for name in sorted(names):
        value = inputs[name]
        if isinstance(value, jax.core.Tracer) or not value.size:
            continue
        host = np.asarray(value)  # JAX's own minimum would be traced, under jit
        if not -INPUTS <= int(host.min()) <= int(host.max()) <= INPUTS:
            advice = "number them from 0 on; values that are only compared may be larger"
            raise bad(name, "the spec computes with values beyond 2^28, which may not fit 32 bits", advice)


def bad(argument: str, reason: str, advice: str | None = None) -> SpecError:
    return SpecError(BadCall(argument=argument, reason=reason, advice=advice))


def prepare(
    kinds: Mapping[str, str],
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: Any = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    bias: Any = None,
    q_offset: Any = None,
    kv_lengths: Any = None,
    gates: Any = None,
    return_lse: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> Call:
    """Check the arrays of a call against each other; ``kinds`` of its run-time inputs. Raises SpecError, at
    trace time."""
    q, k, v = (jnp.asarray(x) for x in (q, k, v))
    if q.ndim not in (3, 4) or k.ndim != q.ndim or v.ndim != q.ndim:
        raise bad(
            "q, k, v",
            f"shapes {q.shape}, {k.shape}, {v.shape} are not [B, T, N, H], [B, S, K, H], [B, S, K, Hv]",
            "all three with the batch axis or all three without",
        )
    unbatched = q.ndim == 3
    if unbatched:
        q, k, v = q[None], k[None], v[None]
    _check_qkv(q, k, v)
    batch, n_q, heads, head_dim = q.shape
    n = k.shape[1]
    dtype = q.dtype
    if scale is None:
        scale = 1 / float(np.sqrt(head_dim))
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        scale = jnp.asarray(scale)
        if scale.shape != () or scale.dtype == bool:
            raise bad("scale", f"one number is needed, not {scale.dtype}{list(scale.shape)}")
        # A traced scale goes into q, in float32, so that its gradient is plain differentiation.
        q = q.astype(jnp.promote_types(dtype, jnp.float32)) * scale
        k = k.astype(q.dtype)
        v = v.astype(q.dtype)
        scale = 1.0
    check_softcap(softcap)
    given = check_inputs(kinds, on_host(kinds, inputs or {}), n)
    bias = _bias(bias, unbatched, batch, heads, n_q, n)
    operands = Operands(
        q=q,
        k=k,
        v=v,
        scale=float(scale),
        q_offset=_offset(q_offset, n, n_q),
        softcap=None if softcap is None else float(softcap),
        alibi_slopes=_per_head("alibi_slopes", alibi_slopes, heads),
        bias=bias,
        kv_lengths=_lengths(kv_lengths, batch),
        inputs=_inputs(of_kind("token", kinds, given), n, n_q, batch, q_offset),
        centroids=_centroids(of_kind("centroids", kinds, given), heads, head_dim),
    )
    if gates is not None:
        gates = jnp.asarray(gates)[None] if unbatched else jnp.asarray(gates)
    return Call(operands, unbatched, _per_head("sinks", sinks, heads), gates, return_lse, dtype)


def check_softcap(softcap: Any) -> None:
    """Raise SpecError where it is no positive number, known now."""
    if softcap is not None and not (isinstance(softcap, numbers.Real) and 0 < float(softcap) < float("inf")):
        what = "an array" if hasattr(softcap, "shape") else repr(softcap)
        raise bad("softcap", f"a positive number is needed, not {what}")


def _check_qkv(q: jax.Array, k: jax.Array, v: jax.Array) -> None:
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise bad("q, k, v", f"the batch sizes differ: {shapes}")
    if k.shape[1] != v.shape[1] or k.shape[2] != v.shape[2]:
        raise bad("k, v", f"lengths or heads differ: {shapes}")
    if q.shape[3] != k.shape[3]:
        raise bad("q, k", f"the head sizes differ: {shapes}")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise bad("k", f"{q.shape[2]} query heads are no multiple of {k.shape[2]} key heads")
    if q.shape[1] == 0 or k.shape[1] == 0 or q.shape[3] == 0:
        raise bad("q, k, v", f"an axis is empty: {shapes}")
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (q, k, v)):
        raise bad("q, k, v", f"floating-point arrays are needed: {q.dtype}, {k.dtype}, {v.dtype}")
    if not q.dtype == k.dtype == v.dtype:
        raise bad("q, k, v", f"the dtypes differ: {q.dtype}, {k.dtype}, {v.dtype}", "cast them to one")


def _bias(bias: Any, unbatched: bool, batch: int, heads: int, n_q: int, n: int) -> jax.Array | None:
    if bias is None:
        return None
    given: jax.Array = jnp.asarray(bias)
    if given.dtype == bool:
        raise bad(
            "bias",
            "it is added to the logits, and a mask of true and false is not",
            "write the mask in the spec, or add `jnp.where(mask, 0.0, -jnp.inf)`",
        )
    full = given
    if given.ndim == 2:
        full = given[None, None]
    elif given.ndim == 3 and unbatched:
        full = given[None]
    ok = full.ndim == 4 and full.shape[0] in (1, batch) and full.shape[1] in (1, heads)
    if not ok or full.shape[2:] != (n_q, n):
        wanted = "[N or 1, T, S]" if unbatched else "[B or 1, N or 1, T, S]"
        raise bad("bias", f"shape {given.shape} is not {wanted} (or [T, S]) with T = {n_q}, S = {n}")
    return full


def _per_head(name: str, x: Any, heads: int) -> jax.Array | None:
    if x is None:
        return None
    values: jax.Array = jnp.asarray(x)
    if values.shape != (heads,):
        raise bad(name, f"one number for each of the {heads} query heads is needed, not shape {values.shape}")
    return values


def _offset(q_offset: Any, n: int, n_q: int) -> Any:
    if q_offset is None:
        return n - n_q
    if isinstance(q_offset, (int, np.integer)) and not isinstance(q_offset, bool):
        if not -(2**31) <= q_offset <= 2**31 - n_q:
            raise bad("q_offset", f"positions from {q_offset} on do not fit 32 bits")
        return int(q_offset)
    q_offset = jnp.asarray(q_offset)
    if q_offset.shape != () or not jnp.issubdtype(q_offset.dtype, jnp.integer):
        raise bad("q_offset", f"one integer is needed, not {q_offset.dtype}{list(q_offset.shape)}")
    return q_offset.astype(jnp.int32)


def _lengths(kv_lengths: Any, batch: int) -> jax.Array | None:
    if kv_lengths is None:
        return None
    lengths: jax.Array = jnp.atleast_1d(jnp.asarray(kv_lengths))
    if lengths.shape not in ((batch,), (1,)) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise bad("kv_lengths", f"integers [{batch}] are needed, not {lengths.dtype}{list(lengths.shape)}")
    return jnp.broadcast_to(lengths.astype(jnp.int32), (batch,))


def _inputs(given: Mapping[str, Any], n: int, n_q: int, batch: int, q_offset: Any) -> dict[str, jax.Array]:
    found = {}
    static = n - n_q if q_offset is None else q_offset
    for name, value in given.items():
        if isinstance(static, (int, np.integer)) and (static < 0 or static + n_q > n):
            raise bad(
                name,
                f"queries at positions {static} … {static + n_q - 1} have no value in an input of {n} tokens",
                "run-time inputs need every query's position among the keys",
            )
        value = jnp.asarray(value)
        value = (value[None] if value.ndim == 1 else value).astype(jnp.int32)
        if value.shape[0] not in (1, batch):
            raise bad(name, f"batch size {value.shape[0]} is not {batch}")
        found[name] = value
    return found


def _centroids(given: Mapping[str, Any], heads: int, head_dim: int) -> dict[str, jax.Array]:
    found = {name: jnp.asarray(value) for name, value in given.items()}
    for name, value in found.items():
        if value.shape[-1] != head_dim or value.shape[:-2] not in ((), (heads,)):
            expected = f"[k, {head_dim}] or [{heads}, k, {head_dim}]"
            raise SpecError(InputShape(name=name, shape=tuple(value.shape), expected=expected))
    return found


def finish(call: Call, branches: list[tuple[jax.Array, jax.Array]]) -> Any:
    """Sinks, gates, dtype and batch axis; the result of `attention`."""
    if len(branches) > 1:
        return _finish_mix(call, branches)
    if call.gates is not None:
        raise bad("gates", "only a spec with `mix` has branches to gate")
    out, lse = branches[0]
    if call.sinks is not None:
        out, lse = add_sinks(out, lse, call.sinks)
    out = out.astype(call.dtype)
    if call.unbatched:
        out, lse = out[0], lse[0]
    return (out, lse) if call.return_lse else out


def _finish_mix(call: Call, branches: list[tuple[jax.Array, jax.Array]]) -> Any:
    if call.return_lse or call.sinks is not None:
        raise bad(
            "return_lse, sinks", "the branches of `mix` are normalised apart: there is no one log-sum-exp"
        )
    shape = (*branches[0][0].shape[:3], len(branches))
    if call.gates is None or call.gates.shape != shape:
        skip = int(call.unbatched)
        found = "none" if call.gates is None else str(list(call.gates.shape[skip:]))
        needed = list(shape[skip:])
        raise bad("gates", f"`mix` of {len(branches)} branches needs gates {needed}, found {found}")
    out = sum(call.gates[..., i, None].astype(o.dtype) * o for i, (o, _) in enumerate(branches))
    out = jnp.asarray(out).astype(call.dtype)
    return out[0] if call.unbatched else out


def add_sinks(out: jax.Array, lse: jax.Array, sinks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One more logit per head in the denominator only (gpt-oss). Rows without keys stay 0 and −inf."""
    empty = jnp.isneginf(lse)
    known = jnp.where(empty, 0.0, lse)
    total = jnp.logaddexp(known, sinks.astype(lse.dtype))
    out = out * jnp.where(empty, 0.0, jnp.exp(known - total))[..., None]
    return out, jnp.where(empty, -jnp.inf, total)
