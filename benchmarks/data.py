"""What depends on the data: packed documents, and patterns chosen from q and k, beside dense attention.

    python benchmarks/data.py [--n 16384] [--only NAME …] [--save]

float32, batch 1, 4 heads of 64, forward, the least of some rounds. "dense": the time of
`jax.nn.dot_product_attention` without a mask; "full": that of `full`,
which never holds all scores at once. "n² ÷ kept": what their time would shrink by if only the pairs kept cost
anything; "share" and "share of full": how much of that is had. "compiled": programs that JAX compiles for
other values of the inputs, and other q and k; none is expected.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, quickest, save, table

import patterndsl as pd

SPECS = {
    "documents": "causal & same(doc)",
    "documents, random lengths": "causal & same(doc)",
    "select, by block of queries": 'select(8, 64, per="block")',
    "select, by query": "select(8, 64)",
    "MoBA": "causal & (select(7, 64, among=causal - chunked(64)) | chunked(64))",
    "LSH": "lsh(64)",
    "LSH, causal, two rounds": "causal & (lsh(64, rounds=2) | self)",
    "LSH, many buckets": "causal & (lsh(512) | self)",
    "routing": "cluster(128, 128, centroids=mu)",
    "routing, causal": "causal & (cluster(128, 128, centroids=mu) | self)",
}

INPUTS = {"same(doc)": "input doc: token\n", "centroids=mu": "input mu: centroids\n"}


def documents(name: str, n: int, seed: int) -> np.ndarray:
    """16 documents, of one length or of random ones."""
    rng = np.random.default_rng(seed)
    if name == "documents":
        return np.repeat(np.arange(16), -(-n // 16))[:n]
    return np.searchsorted(np.sort(rng.choice(np.arange(1, n), 15, replace=False)), np.arange(n), "right")


def row(name: str, n: int, heads: int, rounds: int) -> list[Any]:
    """A pattern's milliseconds, dense attention's time over it, and what its kept pairs promise."""
    declared = "".join(line for word, line in INPUTS.items() if word in SPECS[name])
    spec = pd.parse(f"{declared}pattern main = {SPECS[name]}")
    attention = jax.jit(pd.compile(spec))
    # Keys of one head and one neighbourhood resemble each other, as trained ones do.
    rng = np.random.default_rng(0)
    topics = np.repeat(rng.standard_normal((n // 64, 1, 64)), 64, axis=0)[:n]
    x = [rng.standard_normal((n, heads, 64)) for _ in range(3)]
    q, k, v = (jnp.asarray(a, jnp.float32)[None] for a in (x[0] + topics, x[1] + topics, x[2]))

    def given(seed: int) -> dict[str, Any]:
        made = {
            "doc": lambda: jnp.asarray(documents(name, n, seed), jnp.int32),
            "mu": lambda: jax.random.normal(jax.random.key(seed), (128, 64)),
        }
        return {name: made[name]() for name in spec.inputs}

    first, dense = given(0), jax.jit(jax.nn.dot_product_attention)
    full = jax.jit(pd.compile("full"))
    calls = [
        lambda: attention(q, k, v, **first).block_until_ready(),
        lambda: dense(q, k, v).block_until_ready(),
        lambda: full(q, k, v).block_until_ready(),
    ]
    ours, theirs, whole = quickest(
        calls, rounds, turn=2.0
    )  # the first call after dense attention takes memory anew
    before = attention._cache_size()
    attention(q[:, ::-1], k, v, **given(1)).block_until_ready()
    kept = n * n / pairs(spec, n, q, k, first)
    return [
        name,
        1e3 * ours,
        1e3 * theirs,
        theirs / ours,
        kept,
        theirs / ours / kept,
        1e3 * whole,
        whole / ours,
        whole / ours / kept,
        attention._cache_size() - before,
    ]


def pairs(spec: pd.Spec, n: int, q: jax.Array, k: jax.Array, inputs: dict[str, Any]) -> float:
    """Pairs kept by head 0."""
    host = {name: np.asarray(x) for name, x in inputs.items()}
    if "doc" in host:
        return float(sum(size * (size + 1) // 2 for size in np.bincount(host["doc"])))
    operands = (np.asarray(q[0]), np.asarray(k[0]))
    return float(spec.mask(n, operands=operands, inputs=host, num_heads=q.shape[2]).sum())


HEADER = (
    "pattern",
    "ms",
    "dense ms",
    "dense ÷ ours",
    "n² ÷ kept",
    "share",
    "full ms",
    "full ÷ ours",
    "share of full",
    "compiled",
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--save", action="store_true", help="in benchmarks/results/data.json")
    args = parser.parse_args(argv)
    rows = [row(name, args.n, args.heads, args.rounds) for name in args.only]
    print(f"n = {args.n}, 1 × {args.heads} heads × 64, float32; {machine()}")
    print(table(HEADER, rows))
    if args.save:
        command = f"python benchmarks/data.py --n {args.n} --save"
        save("data", command, [dict(zip(HEADER, r, strict=True)) for r in rows], key=HEADER[0])


if __name__ == "__main__":
    main()
