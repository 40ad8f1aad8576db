"""The cost model beside the clock: predicted and measured seconds of the ways to run a spec.

    python benchmarks/cost_model.py [--backend xla] [--save]

For each spec every structure (undivided in each layout that a member names, and the splits) in tiles of a few
sizes, forward, float32, batch 1, on this machine's JAX device. Rank correlation (Spearman) over all runs says
whether the model tells cheap from dear; within a spec, ``regret`` is the time of the way that the model would
choose of these over that of the fastest, 1 where it finds it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import Any

import numpy as np
from common import machine, quickest, save, table

from patterndsl.plan.cost import plan_work, seconds
from patterndsl.plan.rates import rates_of
from patterndsl.spec import as_spec
from patterndsl.timing import Shapes, operands, ready
from patterndsl.tuning import Tuner

SPECS: dict[str, tuple[str, int]] = {
    "window": ("causal & local(256)", 8192),
    "narrow window": ("causal & local(48)", 8192),
    "longformer": ("local(128) | global(tokens=[0:4])", 8192),
    "headline": ("causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))", 8192),
    "strided": ("causal & (local(64) | strided(64))", 4096),
    "strided alone": ("causal & strided(32)", 4096),
    "dilated": ("causal & dilated(window=64, dilation=8)", 8192),
    "fixed": ("causal & fixed(block=64, summary=4)", 4096),
    "logsparse": ("causal & (local(64) | logsparse)", 8192),
    "bigbird": ("local(64) | columns([0:8]) | random(blocks=3, block=64)", 4096),
    "butterfly": ("butterfly(block=16)", 4096),
    "neighborhood": ("neighborhood(shape=[64, 64], window=9)", 4096),
    "longnet": ("causal & (segments(256, 1) + segments(1024, 4))", 4096),
    "chunked": ("causal & chunked(256, back=1)", 8192),
    "causal": ("causal", 2048),
}
SIZES = ((128, 128), (64, 64), (32, 32))


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation; ties share the mean of their ranks."""

    def ranks(x: list[float]) -> np.ndarray:
        _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[inverse]

    if len(set(a)) < 2 or len(set(b)) < 2:
        return float("nan")
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def runs(text: str, n: int, heads: int, backend: str, repeats: int) -> list[tuple[str, float, float]]:
    """Each way to run the spec: what it is, its predicted and its measured seconds."""
    tuner = Tuner(as_spec(text), Shapes(n, n, heads=heads, kv_heads=heads), None, 0, backend)
    rates = rates_of(tuner.workload.platform, tuner.workload.backend)
    arrays, more = operands(tuner.shapes)
    ways = [
        (what, seconds(plan_work(plan, tuner.workload), rates), ready(attention, arrays, more))
        for what, attention, plan in tuner.every(SIZES)
    ]
    if not ways:
        sys.exit(f"the backend {backend} cannot run {text}: `patterndsl analyze` says why")
    measured = quickest([call for *_, call in ways], repeats)  # in turns: a slow phase is no way's own
    return [(what, predicted, took) for (what, predicted, _), took in zip(ways, measured, strict=True)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--specs", nargs="*", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("--verbose", action="store_true", help="print every way to run each spec")
    parser.add_argument("--save", action="store_true", help="write to benchmarks/results")
    args = parser.parse_args(argv)
    rows: list[list[Any]] = []
    every: list[tuple[str, str, float, float]] = []
    for name in args.specs:
        start = time.perf_counter()
        found = runs(*SPECS[name], args.heads, args.backend, args.repeats)
        predicted, measured = [p for _, p, _ in found], [s for *_, s in found]
        best, chosen = int(np.argmin(measured)), int(np.argmin(predicted))
        errors = [abs(np.log(p / s)) for p, s in zip(predicted, measured, strict=True)]
        rows.append(
            [name, SPECS[name][1], len(found), 1000 * measured[best], measured[0] / measured[best],
             measured[chosen] / measured[best], spearman(predicted, measured),
             float(np.exp(np.median(errors))), found[best][0]]
        )  # fmt: skip
        every += [(name, *x) for x in found]
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    header = [
        "spec",
        "n",
        "ways",
        "fastest ms",
        "plain/fastest",
        "regret",
        "rank corr.",
        "factor",
        "fastest is",
    ]
    overall = spearman([p for _, _, p, _ in every], [s for *_, s in every])
    print(f"1 × {args.heads} heads × 64, float32, {args.backend}; {machine()}")
    print(table(header, rows))
    print(f"rank correlation over all {len(every)} runs: {overall:.3f}")
    if args.verbose:
        for name, what, p, s in every:
            print(f"{name:14} {1000 * s:8.2f} ms, predicted {1000 * p:8.2f}: {what}")
    if args.save:
        kept = [{"spec": n, "what": w, "predicted": p, "measured": s} for n, w, p, s in every]
        summary = [dict(zip(header, r, strict=True)) for r in rows]
        save(
            "cost_model" if args.backend == "auto" else f"cost_model_{args.backend}",
            shlex.join(["python", "benchmarks/cost_model.py", *(sys.argv[1:] if argv is None else argv)]),
            {"rank correlation": overall, "specs": summary, "runs": kept},
        )


if __name__ == "__main__":
    main()
