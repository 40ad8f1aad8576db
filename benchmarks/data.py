"""What depends on the data: packed documents, and patterns chosen from q and k, beside dense attention.

    python benchmarks/data.py [--n 16384] [--only NAME …] [--save]

float32, batch 1, 4 heads of 64, forward, the least of some rounds. "dense": the time of
`jax.nn.dot_product_attention` without a mask; "torch": that of torch's `scaled_dot_product_attention`, where
it is installed (the `bench` extra); "full": that of `full` on this project's kernels. "n² ÷ kept": what their
time would shrink by if only the pairs kept cost anything; "share of …": how much of that is had. "compiled":
programs that JAX compiles for other values of the inputs, and other q and k; none is expected.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
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

PEERS = ("dense", "full", "torch")
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

    first = given(0)
    dense, full = (jax.jit(f) for f in (jax.nn.dot_product_attention, pd.compile("full")))
    calls = [
        lambda: attention(q, k, v, **first).block_until_ready(),
        lambda: dense(q, k, v).block_until_ready(),
        lambda: full(q, k, v).block_until_ready(),
        torch_runner(q, k, v),
    ]
    # Turns are long: the first call after dense attention takes memory anew.
    ours, *theirs = quickest([call for call in calls if call is not None], rounds, turn=2.0)
    before = attention._cache_size()
    attention(q[:, ::-1], k, v, **given(1)).block_until_ready()
    kept = n * n / pairs(spec, n, q, k, first)
    found = [name, 1e3 * ours, kept, attention._cache_size() - before]
    for i in range(len(PEERS)):
        its = theirs[i] if i < len(theirs) else None
        found += [None] * 3 if its is None else [1e3 * its, its / ours, its / ours / kept]
    return found


def torch_runner(*operands: jax.Array) -> Callable[[], Any] | None:
    """torch's own dense attention; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    q, k, v = (torch.from_numpy(np.array(x).transpose(0, 2, 1, 3).copy()) for x in operands)
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)


def pairs(spec: pd.Spec, n: int, q: jax.Array, k: jax.Array, inputs: dict[str, Any]) -> float:
    """Pairs kept by head 0."""
    host = {name: np.asarray(x) for name, x in inputs.items()}
    if "doc" in host:
        return float(sum(size * (size + 1) // 2 for size in np.bincount(host["doc"])))
    operands = (np.asarray(q[0]), np.asarray(k[0]))
    return float(spec.mask(n, operands=operands, inputs=host, num_heads=q.shape[2]).sum())


HEADER = (
    *("pattern", "ms", "n² ÷ kept", "compiled"),
    *(text for peer in PEERS for text in (f"{peer} ms", f"{peer} ÷ ours", f"share of {peer}")),
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
