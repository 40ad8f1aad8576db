"""How long do block tables take to build? Ours beside FlexAttention's and splash attention's, against n.

    python benchmarks/tables.py [--save]

Tiles of 128 × 128. Ours: `compile(spec).plan(n)` in a fresh process for each length, import and parsing
excluded, nothing cached. FlexAttention: `create_block_mask` on the CPU (torch, if it is installed). Splash
attention: `process_mask` of jax's TPU kernel, which runs on the host; it is given the masks that it computes
lazily (causal and windows; others it takes as dense arrays only). Peers double n until a length would take
more than about 20 seconds or a fourth of the memory. One thread each.

Bytes per kept tile are those of the tables that are kept; *peak* is how much the process's resident set grew
while ours were built, per kept tile. A kept tile is one of tokens, or a single summary. The exponent is the
slope of a least-squares line through log time against log n, over all lengths shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from common import machine, save, table

TILE = 128
HEADLINE = "causal & (local(512) | global(tokens=[0:4]) | hierarchical(factor=4))"
SPECS = {
    "causal & local(512)": ("ours", "flex", "splash"),
    "causal": ("ours", "flex", "splash"),
    "causal & (local(512) | global(tokens=[0:4]))": ("ours", "flex"),
    HEADLINE: ("ours",),
}
OURS = (2**12, 2**13, 2**14, 2**15, 2**16, 2**18, 2**20, 10**7)
LONGEST = 20.0  # seconds of a peer's last length


def ours(spec: str, n: int) -> dict[str, float]:
    """Seconds, bytes and kept tiles of one plan, and the growth of the resident set."""
    import resource

    import patterndsl as pd

    attention = pd.compile(spec, block_sizes=(TILE, TILE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    plan = attention.plan(n)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    stats = plan.stats()
    kept = stats.full_blocks + stats.partial_blocks
    return {"n": n, "seconds": seconds, "bytes": stats.table_bytes, "kept": kept, "peak": peak}


def flex(spec: str, n: int) -> dict[str, float]:
    """The same of FlexAttention's block mask."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    torch.set_num_threads(1)
    masks = {
        "causal": lambda b, h, q, k: k <= q,
        "causal & local(512)": lambda b, h, q, k: (k <= q) & (q - k < 512),
        "causal & (local(512) | global(tokens=[0:4]))": lambda b, h, q, k: (
            (k <= q) & ((q - k < 512) | (k < 4) | (q < 4))
        ),
    }
    start = time.perf_counter()
    made = create_block_mask(masks[spec], None, None, n, n, device="cpu", BLOCK_SIZE=TILE)
    seconds = time.perf_counter() - start
    size = sum(x.nbytes for x in made.as_tuple() if isinstance(x, torch.Tensor))
    kept = int(made.kv_num_blocks.sum() + made.full_kv_num_blocks.sum())
    return {"n": n, "seconds": seconds, "bytes": size, "kept": kept}


def splash(spec: str, n: int) -> dict[str, float]:
    """The same of splash attention's mask tables."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as info

    one: Any = masks.CausalMask((n, n)) if spec == "causal" else masks.LocalMask((n, n), (511, 0), 0)
    start = time.perf_counter()
    made, _ = info.process_mask(masks.MultiHeadMask([one]), (TILE, TILE))
    seconds = time.perf_counter() - start
    size = sum(x.nbytes for x in made if hasattr(x, "nbytes"))
    return {"n": n, "seconds": seconds, "bytes": size, "kept": int((made.block_mask > 0).sum())}


RUN = {"ours": ours, "flex": flex, "splash": splash}


def peer(who: str, spec: str) -> list[dict[str, float]]:
    """A peer at doubling lengths, as far as it gets, in this process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    RUN[who](spec, 1024)  # libraries are loaded
    found: list[dict[str, float]] = []
    n = OURS[0]
    while 16 * n * n < memory / 4 if who == "flex" else True:
        found.append(RUN[who](spec, n))
        growth = found[-1]["seconds"] / found[-2]["seconds"] if len(found) > 1 else 4.0
        if found[-1]["seconds"] * max(growth, 2.0) > LONGEST:
            break
        n *= 2
    return found


def process(*arguments: str) -> Any:
    """What this file prints in a process of its own, on one core; None where a peer is not installed."""
    command = [sys.executable, __file__, "--one", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def exponent(rows: list[dict[str, float]]) -> float:
    import numpy as np

    n, seconds = (np.log([r[key] for r in rows]) for key in ("n", "seconds"))
    return float(np.polyfit(n, seconds, 1)[0])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/tables.json")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if args.one:
        who, spec, *n = args.one
        print(json.dumps(RUN[who](spec, int(n[0])) if n else peer(who, spec)))
        return
    rows, slopes = [], []
    for spec, names in SPECS.items():
        mine: dict[float, float] = {}
        for who in names:
            found = [process(who, spec, str(n)) for n in OURS] if who == "ours" else process(who, spec)
            if not found:
                print(f"{who} is not installed: left out")
                continue
            if who == "ours":
                mine = {r["n"]: r["seconds"] for r in found}
            for r in found:
                ratio = r["seconds"] / mine[r["n"]] if r["n"] in mine else ""
                peak = r["peak"] / r["kept"] if "peak" in r else ""
                rows.append(
                    [
                        spec,
                        who,
                        r["n"],
                        r["seconds"],
                        ratio,
                        r["kept"],
                        r["bytes"],
                        r["bytes"] / r["kept"],
                        peak,
                    ]
                )
            slopes.append([spec, who, f"{found[0]['n']} … {found[-1]['n']}", exponent(found)])
    header = ["spec", "who", "n", "seconds", "÷ ours", "kept tiles", "bytes", "bytes a tile", "peak a tile"]
    print(machine())
    print(table(header, rows))
    print()
    print(table(["spec", "who", "lengths", "exponent of n"], slopes))
    if args.save:
        results = {
            "times": [dict(zip(header, r, strict=True)) for r in rows],
            "exponents": [dict(zip(("spec", "who", "lengths", "exponent"), r, strict=True)) for r in slopes],
        }
        save("tables", "python benchmarks/tables.py --save", results)


if __name__ == "__main__":
    main()
