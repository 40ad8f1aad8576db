"""Backends: what turns a plan into an attention function.

A backend is a module (or package) here with a `Backend` object named ``BACKEND`` (`calling` is what they
share). It sees a plan, never the syntax tree, and answers `supports` with a value: None, or `Unsupported`
with the reason.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import jax

    from patterndsl.plan.plan import Plan


@dataclasses.dataclass(frozen=True)
class Unsupported:
    """Why a backend does not take a plan, and what to do instead."""

    reason: str
    advice: str | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """What a plan is lowered for. ``platform``: ``cpu``, ``gpu`` or ``tpu``; dtypes are names. ``chip``: its
    device, as `patterndsl.devices` names it (``sm90``, ``v5e``); None: the one at hand, on which kernels are
    to run."""

    platform: str
    dtype: str
    batch: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    has_bias: bool = False
    has_slopes: bool = False
    interpret: bool = False
    chip: str | None = None


@dataclasses.dataclass(frozen=True)
class Operands:
    """The arrays of one call, batched: q [B, T, N, H], k [B, S, K, H], v [B, S, K, Hv].

    ``bias`` [B | 1, N | 1, T, S]; ``alibi_slopes`` [N]; ``kv_lengths`` int32 [B]; ``inputs``: int32 [B | 1,
    S] each; ``centroids`` [k, H] or [N, k, H] each; ``q_offset``: int or int32 scalar, the position of the
    first query. ``scale`` and ``softcap`` are floats.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    scale: float
    q_offset: Any
    softcap: float | None = None
    alibi_slopes: jax.Array | None = None
    bias: jax.Array | None = None
    kv_lengths: jax.Array | None = None
    inputs: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)
    centroids: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)


Kernel = Callable[[Operands], "list[tuple[jax.Array, jax.Array]]"]
"""For each branch (one, without `mix`) the normalised output [B, T, N, Hv] and log-sum-exp [B, T, N], both in
float32 (float64 for float64 operands); rows without keys: 0 and −inf. Differentiable in all floating
operands."""


class Backend(Protocol):
    """One way to run plans."""

    name: str

    def supports(self, plan: Plan, target: Target) -> Unsupported | None:
        """None where the plan can be lowered for the target, else the reason why not."""

    def lower(self, plan: Plan, target: Target) -> Kernel:
        """The function that computes the plan."""


def backends() -> dict[str, Backend]:
    """All backends by name."""
    found: dict[str, Backend] = {}
    for info in pkgutil.iter_modules(__path__):
        backend: Backend | None = getattr(importlib.import_module(f"{__name__}.{info.name}"), "BACKEND", None)
        if backend is not None:
            found[backend.name] = backend
    return found
