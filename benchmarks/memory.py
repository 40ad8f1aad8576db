"""Peak memory of the headline spec against n: it must grow with n, not with n².

    python benchmarks/memory.py [--save]

Each length runs in a process of its own; the peak is the process's resident set (`ru_maxrss`) less what it
held before the arrays were made. The last column is what one float32 score matrix, [heads, n, n], would take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from common import machine, save, table

HEADLINE = "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))"
MIB = 2**20


def measure(n: int, heads: int, head_dim: int, backward: bool) -> dict[str, float]:
    """Peak and arrays' size in bytes, and seconds, of one run in this process."""
    import resource
    import time

    import jax
    import jax.numpy as jnp

    import patterndsl as pd

    attention = pd.compile(HEADLINE)
    run = jax.jit(
        jax.grad(lambda q, k, v: attention(q, k, v).sum(), argnums=(0, 1, 2)) if backward else attention
    )
    small = jnp.ones((1, 256, heads, head_dim))
    jax.block_until_ready(run(small, small, small))  # compiler and libraries are loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (1, n, heads, head_dim)) for key in keys)
    jax.block_until_ready(run(q, k, v))
    start = time.perf_counter()
    jax.block_until_ready(run(q, k, v))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"peak": peak, "arrays": 4 * q.nbytes, "seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="8192,16384,32768,65536")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/memory.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, args.heads, args.head_dim, args.backward)))
        return
    rows = []
    for n in map(int, args.lengths.split(",")):
        for backward in (False, True):
            command = [sys.executable, __file__, "--one", str(n), "--heads", str(args.heads)]
            command += ["--head-dim", str(args.head_dim)] + (["--backward"] if backward else [])
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            scores = 4 * args.heads * n * n
            rows.append(
                [f"{n}", "gradient" if backward else "forward", found["peak"] / MIB, found["arrays"] / MIB,
                 found["seconds"], scores / MIB]
            )  # fmt: skip
    header = ["n", "what", "peak MiB", "q k v out MiB", "seconds", "n² scores MiB"]
    print(f"{HEADLINE}, 1 × {args.heads} heads × {args.head_dim}, float32; {machine()}")
    print(table(header, rows))
    if args.save:
        save(
            "memory",
            f"python benchmarks/memory.py --lengths {args.lengths} --save",
            [dict(zip(header, r, strict=True)) for r in rows],
        )


if __name__ == "__main__":
    main()
