"""What the benchmarks share: timing, the machine's description, a table, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import math
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"


def best_of(run: Callable[[], Any], repeats: int = 7, budget: float = 2.0) -> float:
    """Median seconds of a call, after a warm-up that compiles; the call waits for its result.

    At most ``repeats`` calls, and no more once they have taken ``budget`` seconds.
    """
    run()
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < budget):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def quickest(runs: Sequence[Callable[[], Any]], rounds: int = 5, turn: float = 0.1) -> list[float]:
    """Seconds of each call: the least of some rounds, in each of which all calls take turns of ``turn``
    seconds, so that a slow phase of the machine falls on all alike. A first round compiles."""
    for run in runs:
        run()
    least = [math.inf] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            left = turn
            while left > 0:
                start = time.perf_counter()
                run()
                took = time.perf_counter() - start
                least[i], left = min(least[i], took), left - took
    return least


def machine() -> dict[str, str]:
    """Processor, Python and the versions of what is measured."""
    found = {"processor": _processor(), "python": platform.python_version(), "system": platform.system()}
    for name in ("jax", "jaxlib", "numpy", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    import os

    info = pathlib.Path("/proc/cpuinfo")
    model = platform.processor()
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model or platform.machine()}, {os.cpu_count()} cores"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns, numbers to the right."""
    cells = [[_cell(x) for x in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    lines = []
    for row in [list(header), *cells]:
        lines.append(
            "  ".join(
                x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    return "\n".join(lines)


def _cell(x: Any) -> str:
    return f"{x:.3g}" if isinstance(x, float) else str(x)


def save(name: str, command: str, rows: Any, key: str | None = None) -> pathlib.Path:
    """Write results with the machine, the date and the command that made them.

    ``key``: the column that names a row; rows already there that are not measured now stay as they are.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    if key is not None and path.exists():
        measured = {row[key]: row for row in rows}
        before = [measured.pop(row[key], row) for row in json.loads(path.read_text())["rows"]]
        rows = [*before, *measured.values()]
    data = {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "rows": rows}
    path.write_text(json.dumps(data, indent=2) + "\n")
    return path
