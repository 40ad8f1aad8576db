"""`calibrate`: what a unit of work costs on this machine, measured once and stored for the cost model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patterndsl import cache
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall

if TYPE_CHECKING:
    from patterndsl.plan.cost import Work

CASES: tuple[tuple[str, int, int], ...] = (
    ("causal & local(64)", 4096, 64),
    ("causal & local(256)", 2048, 128),
    ("causal & local(256)", 8192, 64),
    ("causal", 2048, 64),
    ("causal & (local(128) | strided(64))", 2048, 64),
    ("causal & dilated(window=64, dilation=16)", 4096, 64),
    ("causal & chunked(100)", 4096, 32),
    ("causal & (local(64) | logsparse)", 4096, 64),
    ("local(64) | global(tokens=[0:4])", 4096, 64),
    ("causal & (local(64) | hierarchical(factor=4))", 4096, 64),
    ("full", 1024, 32),
    ("local(16) | random(blocks=2, block=32)", 2048, 64),
    ("neighborhood(shape=[64, 64], window=9)", 4096, 64),
    ("where(q, k: (q - k) % 48 < 3 and k // 7 <= q // 5)", 1024, 64),
)
"""Specs, lengths and head sizes that exercise all kinds of work."""
SIZES = ((128, 128), (32, 32), (256, 64), (64, 16), (16, 16), (64, 64), (64, 256))
ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was measured of one backend: for each run what it was, and its predicted and measured seconds; and
    the rates that were fitted to it, in the file at ``path`` (None where they were not to be stored)."""

    backend: str
    runs: tuple[tuple[str, float, float], ...]
    rates: dict[str, float]
    path: Path | None

    @property
    def error(self) -> float:
        """The median factor, less one, between predicted and measured seconds."""
        return float(np.median([np.exp(abs(np.log(p / s))) - 1 for _, p, s in self.runs]))

    def __str__(self) -> str:
        width = max(map(len, self.rates))
        lines = [self.backend, *(f"  {name:{width}} {rate:.3g} s" for name, rate in self.rates.items())]
        lines.append(f"  {len(self.runs)} runs, predicted within {self.error:.0%} (median)")
        return "\n".join([*lines, f"  stored in {self.path}" if self.path else "  not stored"])


def calibrate(*, backend: str = "auto", seconds: float = 180.0, store: bool = True) -> list[Calibration]:
    """Measure a few patterns in a few ways on this machine's JAX device and fit the cost model's rates to
    them, forward, in float32: of the backend, or for ``auto`` of each that it picks from here.

    They are stored in the user's cache folder, where `compile` finds them from then on. No more is compiled
    for a backend after so many ``seconds``; then what there is runs a few times more. Raises OSError where
    the file cannot be written, and SpecError where there is no such backend, it cannot run here, or there is
    no time for a single run.
    """
    import jax

    from patterndsl.api import compile
    from patterndsl.targets import priced_as
    from patterndsl.timing import Shapes

    automatic = dict.fromkeys((priced_as("auto", jax.default_backend()), "xla"))
    named = list(automatic) if backend == "auto" else [backend]
    for name in named:
        attention = compile("causal", backend=name)
        attention.pick(attention.plan(64), Shapes(64, 64, heads=1, kv_heads=1).target())
    return [_calibrated(name, seconds, store) for name in named]


def _calibrated(backend: str, seconds: float, store: bool) -> Calibration:
    import jax

    from patterndsl.plan import cost
    from patterndsl.plan.fit import fit
    from patterndsl.plan.rates import forget_rates, rates_of
    from patterndsl.tuning import device

    platform = jax.default_backend()
    found = _runs(backend, seconds)
    if not found:
        raise SpecError(BadCall(argument="seconds", reason=f"{seconds} s are too few for a single run"))
    works, measured = [w for _, w, _ in found], [s for *_, s in found]
    origin = f"measured on {device()}, {time.strftime('%Y-%m-%d')}, jax {jax.__version__}"
    rates = cost.Rates(fit(works, measured, rates_of(platform, backend).seconds), origin)
    runs = tuple((what, cost.seconds(work, rates), took) for what, work, took in found)
    by_name = dict(zip(cost.TERMS, rates.seconds, strict=True))
    path = _store(platform, backend, {"origin": origin, "rates": by_name}) if store else None
    forget_rates()
    return Calibration(backend, runs, by_name, path)


def _runs(backend: str, seconds: float) -> list[tuple[str, Work, float]]:
    """What was run, its work, and how long it took: the fastest of several rounds, so that no size of tiles
    has all of a time when the machine was slow. Sizes come one after the other, so that all specs are met
    where time is short."""
    from patterndsl.plan.cost import plan_work
    from patterndsl.spec import as_spec
    from patterndsl.timing import Shapes, fastest, operands, ready
    from patterndsl.tuning import Tuner

    end = time.perf_counter() + seconds
    found: list[tuple[str, Work, Callable[[], Any]]] = []
    took: list[float] = []
    for text, n, size, blocks in ((*case, blocks) for blocks in SIZES for case in CASES):
        shapes = Shapes(n, n, head_dim=size, v_head_dim=size)
        tuner = Tuner(as_spec(text), shapes, None, 0, backend)
        arrays, more = operands(tuner.shapes)
        for what, attention, plan in tuner.every([blocks]):
            if time.perf_counter() < end:
                call = ready(attention, arrays, more)
                found.append(
                    (f"{text}, n = {n}, heads of {size}: {what}", plan_work(plan, tuner.workload), call)
                )
                took.append(fastest(call))
    for _ in range(ROUNDS - 1):
        took = [min(s, fastest(call)) for s, (*_, call) in zip(took, found, strict=True)]
    return [(what, work, s) for (what, work, _), s in zip(found, took, strict=True)]


def _store(platform: str, backend: str, entry: dict[str, Any]) -> Path:
    """Beside what is stored for other devices and backends."""
    from patterndsl.plan.rates import CALIBRATED, KIND

    old = (cache.read(CALIBRATED, KIND) or {}).get("devices")
    devices = dict(old) if isinstance(old, dict) else {}
    same = devices.get(platform)
    devices[platform] = {**(same if isinstance(same, dict) else {}), backend: entry}
    return cache.write(CALIBRATED, KIND, {"devices": devices})
