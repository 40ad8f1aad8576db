"""`patterndsl check` as a whole process: Python's start, the imports, parsing and checking.

    python benchmarks/startup.py [--save]

Beside it what Python, its numpy and jax take to start, since no command that needs one can take less. The
bytecode is written by a first run of each, as an installer would.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

from common import machine, save, table

HEADLINE = pathlib.Path(__file__).parents[1] / "examples" / "headline.attn"
CHECK = "import patterndsl.cli as c; c.main()"
PROCESSES = {
    "python": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "patterndsl check headline.attn": ["-c", CHECK, "check", str(HEADLINE)],
    "import jax": ["-c", "import jax"],
}


def measure(arguments: list[str], repeats: int) -> list[float]:
    """Sorted wall seconds of whole processes, after one that is not counted."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/startup.json")
    args = parser.parse_args(argv)
    rows = []
    for name, arguments in PROCESSES.items():
        times = measure(arguments, args.repeats)
        rows.append([name, statistics.median(times), times[0], times[-1]])
    rows = [[*row, row[1] / rows[0][1]] for row in rows]
    header = ["process", "median s", "least s", "most s", "times python"]
    print(machine())
    print(table(header, rows))
    if args.save:
        command = f"python benchmarks/startup.py --repeats {args.repeats} --save"
        save("startup", command, [dict(zip(header, r, strict=True)) for r in rows])


if __name__ == "__main__":
    main()
