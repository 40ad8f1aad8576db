"""`calibrate`: what a unit of work costs on this machine, measured once and stored for the cost model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patterndsl import cache
from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import BadCall

if TYPE_CHECKING:
    from patterndsl.plan.cost import Work

CASES: tuple[tuple[str, int], ...] = (
    ("causal & local(64)", 4096),
    ("causal & local(256)", 2048),
    ("causal & local(256)", 8192),
    ("causal", 2048),
    ("causal & (local(128) | strided(64))", 2048),
    ("causal & dilated(window=64, dilation=16)", 4096),
    ("causal & chunked(100)", 4096),
    ("causal & (local(64) | logsparse)", 4096),
    ("local(64) | global(tokens=[0:4])", 4096),
    ("causal & (local(64) | hierarchical(factor=4))", 4096),
    ("local(16) | random(blocks=2, block=32)", 2048),
    ("neighborhood(shape=[64, 64], window=9)", 4096),
    ("where(q, k: (q - k) % 48 < 3 and k // 7 <= q // 5)", 1024),
)
"""Specs and lengths that exercise all kinds of work."""
SIZES = ((128, 128), (32, 32), (256, 64), (64, 256), (16, 16))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was measured: for each run what it was, its work, and its predicted and measured seconds; and the
    rates that were fitted to it, in the file at ``path`` (None where they were not to be stored)."""

    runs: tuple[tuple[str, float, float], ...]
    rates: dict[str, float]
    path: Path | None

    @property
    def error(self) -> float:
        """The median factor, less one, between predicted and measured seconds."""
        return float(np.median([np.exp(abs(np.log(p / s))) - 1 for _, p, s in self.runs]))

    def __str__(self) -> str:
        lines = [f"{name:12} {rate:.3g} s" for name, rate in self.rates.items()]
        lines.append(f"{len(self.runs)} runs, predicted within {self.error:.0%} (median)")
        return "\n".join([*lines, f"stored in {self.path}" if self.path else "not stored"])


def calibrate(*, backend: str = "auto", seconds: float = 180.0, store: bool = True) -> Calibration:
    """Measure a few patterns in a few ways on this machine's JAX device and fit the cost model's rates to
    them, forward, in float32.

    They are stored in the user's cache folder, where `compile` finds them from then on. No run is begun after
    so many ``seconds``, of which compilation takes most. Raises OSError where the file cannot be written, and
    SpecError where there is no such backend, or no time for a single run.
    """
    import jax

    from patterndsl.api import compile, priced_as
    from patterndsl.plan import cost
    from patterndsl.plan.fit import fit
    from patterndsl.plan.rates import forget_rates, rates_of
    from patterndsl.tuning import device

    compile("causal", backend=backend)  # there is such a backend
    platform = jax.default_backend()
    named = priced_as(backend, platform)
    found = list(_runs(backend, time.perf_counter() + seconds))
    if not found:
        raise SpecError(BadCall(argument="seconds", reason=f"{seconds} s are too few for a single run"))
    works, measured = [w for _, w, _ in found], [s for *_, s in found]
    origin = f"measured on {device()}, {time.strftime('%Y-%m-%d')}, jax {jax.__version__}"
    rates = cost.Rates(fit(works, measured, rates_of(platform, named).seconds), origin)
    runs = tuple((what, cost.seconds(work, rates), took) for what, work, took in found)
    by_name = dict(zip(cost.TERMS, rates.seconds, strict=True))
    path = _store(platform, named, {"origin": origin, "rates": by_name}) if store else None
    forget_rates()
    return Calibration(runs, by_name, path)


def _runs(backend: str, end: float) -> Iterator[tuple[str, Work, float]]:
    """What was run, its work, and how long it took; one size of tiles after the other, so that all specs are
    met where time is short."""
    from patterndsl.plan.cost import plan_work
    from patterndsl.spec import as_spec
    from patterndsl.timing import Shapes, measure, operands
    from patterndsl.tuning import Tuner

    for blocks in SIZES:
        for text, n in CASES:
            tuner = Tuner(as_spec(text), Shapes(n, n), None, 0, backend)
            arrays, more = operands(tuner.shapes)
            for what, attention, plan in tuner.every([blocks]):
                if time.perf_counter() > end:
                    return
                took = measure(attention, arrays, more)
                yield f"{text}, n = {n}: {what}", plan_work(plan, tuner.workload), took


def _store(platform: str, backend: str, entry: dict[str, Any]) -> Path:
    """Beside what is stored for other devices and backends."""
    from patterndsl.plan.rates import CALIBRATED, KIND

    old = (cache.read(CALIBRATED, KIND) or {}).get("devices")
    devices = dict(old) if isinstance(old, dict) else {}
    same = devices.get(platform)
    devices[platform] = {**(same if isinstance(same, dict) else {}), backend: entry}
    return cache.write(CALIBRATED, KIND, {"devices": devices})
