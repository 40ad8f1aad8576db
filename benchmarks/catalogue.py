"""What every pattern of docs/patterns.md takes at about 16k tokens, beside `full` in the same run.

    python benchmarks/catalogue.py [--only NAME …] [--save]

The specs are those whose cost the page tells; `--save` writes benchmarks/results/catalogue.json, from which
`python docs/generate.py` takes the times. float32, forward, batch 1, one head of 64 (of a spec that names
heads, all of them). What is chosen from q and k is chosen from vectors of which neighbours resemble each
other, as trained ones do. "full ÷ ours": dense attention over the same heads, on this project's kernels.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, quickest, save, table

import patterndsl as pd
from patterndsl.patterns.cluster import centroid_counts

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "docs"))
import generate

HEAD_DIM = 64
HEADER = ("pattern", "spec", "n", "heads", "ms", "full ÷ ours")


def operands(n: int, heads: int) -> list[jax.Array]:
    """q, k, v [1, n, heads, 64]: neighbours alike in q and k."""
    rng = np.random.default_rng(0)
    topics = np.repeat(rng.standard_normal((-(-n // 64), 1, HEAD_DIM)), 64, axis=0)[:n]
    x = [rng.standard_normal((n, heads, HEAD_DIM)) + topics * (i < 2) for i in range(3)]
    return [jnp.asarray(a, jnp.float32)[None] for a in x]


def runner(text: str, n: int, heads: int) -> Callable[[], Any]:
    """One call that waits for its result."""
    spec = pd.parse(text)
    attention = pd.compile(spec, layer=generate.CHOOSING)
    q, k, v = operands(n, heads)
    number = max(centroid_counts([attention.module.main]).values(), default=1)
    centroids = np.random.default_rng(2).standard_normal((number, HEAD_DIM)).astype(np.float32)
    given = {name: jnp.asarray(x) for name, x in generate.inputs_of(spec, n, centroids).items()}
    branches = len(attention.plan(n, num_heads=heads).groups[0].branches)
    if branches > 1:
        given["gates"] = jnp.full((1, n, heads, branches), 1 / branches)
    return lambda: attention(q, k, v, **given).block_until_ready()


@functools.cache
def full(n: int, heads: int) -> float:
    """Seconds of dense attention."""
    return quickest([runner("full", n, heads)], 2)[0]


def row(name: str, entry: generate.Entry) -> list[Any]:
    """A pattern's time and what dense attention takes over it."""
    text, n = generate.declared(entry.cost), entry.large_n
    heads = pd.analyze(text, n=n).num_heads
    (ours,) = quickest([runner(text, n, heads)], 3)
    print(f"{name} {1e3 * ours:.1f} ms", file=sys.stderr, flush=True)
    return [name, entry.cost, n, heads, 1e3 * ours, full(n, heads) / ours]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="of these sections of the page")
    parser.add_argument("--save", action="store_true", help="in benchmarks/results/catalogue.json")
    args = parser.parse_args(argv)
    found = [(name, entry) for name, _, _, entry in generate.entries()]
    rows = [row(name, entry) for name, entry in found if args.only is None or name in args.only]
    print(f"1 × heads × {HEAD_DIM}, float32; {machine()}")
    print(table(HEADER, rows))
    if args.save:
        command = "python benchmarks/catalogue.py --save"
        save("catalogue", command, [dict(zip(HEADER, r, strict=True)) for r in rows], key=HEADER[0])


if __name__ == "__main__":
    main()
