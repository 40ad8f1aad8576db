"""Serving sequences of random lengths: compilations and time, padded to buckets and length by length.

    python benchmarks/lengths.py [--most 8192] [--requests 40] [--save]

Both serve the same requests, float32, batch 1, with nothing compiled before. Only the first `--exact` of them
are served length by length, since each costs a compilation; the time per request is what compares.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from common import machine, save, table

import patterndsl as pd

SPECS = {
    "window 256": "causal & local(256)",
    "headline": "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))",
}


def serve(f: Callable[..., Any], lengths: list[int], heads: int, head_dim: int) -> tuple[int, list[float]]:
    """Compilations by XLA, and seconds of each request."""
    compiled: list[float] = []

    def note(name: str, seconds: float, **_: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    rng = np.random.default_rng(0)
    requests = [
        tuple(rng.standard_normal((1, n, heads, head_dim), np.float32) for _ in range(3)) for n in lengths
    ]
    seconds = []
    jax.monitoring.register_event_duration_secs_listener(note)
    for operands in requests:
        start = time.perf_counter()
        jax.block_until_ready(f(*operands))
        seconds.append(time.perf_counter() - start)
    jax.monitoring.unregister_event_duration_listener(note)
    return len(compiled), seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=8192)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--exact", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/lengths.json")
    args = parser.parse_args(argv)
    lengths = np.random.default_rng(1).integers(1, args.most, args.requests, endpoint=True).tolist()
    rows = []
    for name, spec in SPECS.items():
        served = {"padded": lengths, "exact": lengths[: args.exact]}
        for how, mine in served.items():
            attention = pd.compile(spec)
            f = attention.bucketed() if how == "padded" else attention
            compilations, seconds = serve(f, mine, args.heads, args.head_dim)
            late = seconds[len(seconds) // 2 :]
            rows.append(
                [
                    f"{name}, {how}",
                    len(mine),
                    compilations,
                    sum(seconds),
                    sum(seconds) / len(seconds),
                    float(np.median(late)),
                ]
            )
    header = ["spec", "requests", "compilations", "seconds", "s/request", "median s, later half"]
    print(f"random lengths ≤ {args.most}, 1 × {args.heads} heads × {args.head_dim}, float32; {machine()}")
    print(table(header, rows))
    for i in range(0, len(rows), 2):
        print(f"{rows[i + 1][0]} takes {rows[i + 1][4] / rows[i][4]:.1f} times as long for a request")
    if args.save:
        command = f"python benchmarks/lengths.py --most {args.most} --requests {args.requests} --save"
        save("lengths", command, [dict(zip(header, r, strict=True)) for r in rows])


if __name__ == "__main__":
    main()
