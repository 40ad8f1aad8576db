"""A long sequence in pieces, with a state: memory must not grow with the sequence, nor time for a token.

    python benchmarks/stream.py [--lengths 65536,262144,1048576] [--piece 2048] [--save]

Each row is a process of its own. `lax.scan` makes the pieces on the device (one random piece, scaled anew
each time) and adds up the outputs, so that nothing but the state is carried along. "peak" is the process's
resident set (`ru_maxrss`) less what it held once everything was compiled; "temporary" is what the compiled
program says it needs beside its arguments. For comparison, the shortest length is also computed in one pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from common import machine, save, table

SPECS = {
    "segment_memory(512, 512)": "causal & segment_memory(512, 512)",
    "local(508) | sinks(4)": "causal & (local(508) | sinks(4))",
    "compressive(512, 512, 512, 4)": "import compressive as c pattern main = c.compressive(512, 512, 512, 4)",
}
MIB = 2**20


def measure(spec: str, n: int, whole: bool, piece: int, heads: int, head_dim: int) -> dict[str, float]:
    """Seconds of a stream of n tokens and bytes of memory, in this process."""
    import resource
    import time

    import jax
    import jax.numpy as jnp

    import patterndsl as pd

    attention = pd.compile(spec)
    base = jax.random.normal(jax.random.key(0), (3, 1, piece, heads, head_dim))
    state = attention.initial_state(batch=1, num_kv_heads=heads, head_dim=head_dim)

    def in_pieces(base: Any) -> Any:
        def one(carry: Any, i: Any) -> tuple[Any, None]:
            state, total = carry
            out, state = attention(*(base * jnp.cos(i)), state=state)
            return (state, total + out.sum()), None

        return jax.lax.scan(one, (state, jnp.zeros(())), jnp.arange(n // piece))[0][1]

    def in_one_pass(base: Any) -> Any:
        q, k, v = (jnp.concatenate([x * jnp.cos(i) for i in range(n // piece)], 1) for x in base)
        return attention(q, k, v).sum()

    run = jax.jit(in_one_pass if whole else in_pieces).lower(base).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun = time.perf_counter()
    jax.block_until_ready(run(base))
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    held = 0 if whole else sum(x.nbytes for x in jax.tree.leaves(state))
    found = {"temporary": run.memory_analysis().temp_size_in_bytes, "state": held, "peak": peak}
    return {**found, "seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="65536,262144,1048576")
    parser.add_argument("--specs", nargs="*", choices=SPECS, help="which of them; all, unless given")
    parser.add_argument("--piece", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/stream.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        spec, n, whole = args.one
        print(json.dumps(measure(spec, int(n), whole == "whole", args.piece, args.heads, args.head_dim)))
        return
    lengths = [int(n) for n in args.lengths.split(",")]
    header = ["spec, n", "peak MiB", "temporary MiB", "state MiB", "q k v out MiB", "seconds", "tokens/s"]
    print(f"pieces of {args.piece}, 1 × {args.heads} heads × {args.head_dim}, forward, float32; {machine()}")
    for spec in args.specs or SPECS:
        rows = []
        for n, how in [(min(lengths), "whole"), *((n, "pieces") for n in lengths)]:
            command = [
                sys.executable,
                __file__,
                "--one",
                SPECS[spec],
                str(n),
                how,
                "--piece",
                str(args.piece),
            ]
            command += ["--heads", str(args.heads), "--head-dim", str(args.head_dim)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            memory = [found[x] / MIB for x in ("peak", "temporary", "state")]
            arrays = 4 * 4 * n * args.heads * args.head_dim / MIB
            name = f"{spec}, {n}{' in one pass' if how == 'whole' else ''}"
            rows.append([name, *memory, arrays, found["seconds"], round(n / found["seconds"])])
        print(table(header, rows), flush=True)
        if args.save:
            command_line = f"python benchmarks/stream.py --lengths {args.lengths} --piece {args.piece} --save"
            save("stream", command_line, [dict(zip(header, r, strict=True)) for r in rows], key=header[0])


if __name__ == "__main__":
    main()
