"""A branch as JAX sees it: a function of floating operands with its own backward pass, both custom calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from patterndsl.backends.cpu_native.schedule import Schedule


class Floats(NamedTuple):
    """The differentiable operands of a branch, for K key heads with G query heads each.

    ``q`` [B, T, K·G, H]; ``k`` [B, slots, K, H] and ``v`` [B, slots, K, Hv] of each pool; ``bias`` float32
    [B | 1, K·G | 1, T, slots] of each pool, or none; ``slopes`` float32 [K·G], [0] where there are none.
    """

    q: jax.Array
    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]
    bias: tuple[jax.Array, ...]
    slopes: jax.Array


class Runtime(NamedTuple):
    """Integers without gradients: ``q_offset`` int32 [1]; ``lengths`` int32 [B], [0] where there are none;
    ``inputs`` int32 [B | 1, n] each. ``facts``: values, integers [B | 1, K·G | 1, rows, columns], and the
    index of the first row, int32 [1]; ``rows`` int32 [T] each: that which a query reads."""

    q_offset: jax.Array
    lengths: jax.Array
    inputs: tuple[jax.Array, ...]
    facts: tuple[tuple[jax.Array, jax.Array], ...] = ()
    rows: tuple[jax.Array, ...] = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """``library``: the suffix of the custom calls' names. ``softcap``: 0 for none."""

    library: str
    scale: float
    softcap: float


Branch = Callable[[Floats, Runtime], tuple[jax.Array, jax.Array]]


def branch_function(settings: Settings, schedule: Schedule) -> Branch:
    """Normalised output [B, T, K·G, Hv] and log-sum-exp [B, T, K·G] of a branch, float32, differentiable."""

    def call(name: str, results: Any, x: Floats, run: Runtime, *more: jax.Array) -> Any:
        pools = zip(x.k, x.v, *([x.bias] if x.bias else []), strict=True)
        words = jnp.asarray(schedule.words)
        operands = (words, run.q_offset, run.lengths, x.q, x.slopes, *(a for pool in pools for a in pool))
        target = f"patterndsl_{name}_{settings.library}"
        ffi_call: Callable[..., Any] = jax.ffi.ffi_call
        function = ffi_call(target, results, vmap_method="sequential")
        numbers = {"scale": np.float32(settings.scale), "softcap": np.float32(settings.softcap)}
        facts = (a for fact in run.facts for a in fact)
        return function(*operands, *run.inputs, *facts, *run.rows, *more, **numbers)

    def forward(x: Floats, run: Runtime) -> tuple[jax.Array, jax.Array]:
        rows = x.q.shape[:3]
        out, lse = call("forward", (_floats(*rows, x.v[0].shape[-1]), _floats(*rows)), x, run)
        return out, lse

    @jax.custom_vjp
    def attend(x: Floats, run: Runtime) -> tuple[jax.Array, jax.Array]:
        return forward(x, run)

    def save(x: Floats, run: Runtime) -> tuple[tuple[jax.Array, jax.Array], Any]:
        out, lse = forward(x, run)
        return (out, lse), (x, run, out, lse)

    def pull(saved: Any, cotangents: tuple[jax.Array, jax.Array]) -> tuple[Floats, None]:
        x, run, out, lse = saved
        each = (x.k, x.v, x.bias) if x.bias else (x.k, x.v)
        pools = [a for pool in zip(*each, strict=True) for a in pool]
        results = [_floats(*a.shape) for a in (x.q, x.slopes, *pools)]
        d_q, d_slopes, *found = call("backward", results, x, run, out, lse, *cotangents)
        found = [d.astype(a.dtype) for d, a in zip(found, pools, strict=True)]
        k, v, *bias = (tuple(found[i :: len(each)]) for i in range(len(each)))
        return Floats(d_q.astype(x.q.dtype), k, v, bias[0] if bias else (), d_slopes), None

    attend.defvjp(save, pull)
    return attend


def _floats(*shape: int) -> Any:
    return jax.eval_shape(lambda: jnp.zeros(shape, jnp.float32))
