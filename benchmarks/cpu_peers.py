"""Attention on the CPU beside its peers, in one run: forward and backward, as ratios.

    python benchmarks/cpu_peers.py [--n 8192] [--save]

Peers: `jax.nn.dot_product_attention` with the pattern as a dense mask (forward and backward) and, where torch
is installed (the `bench` extra), `torch.compile(flex_attention)` with the same mask function (forward only:
it has no backward on the CPU). All three in float32, batch 1. Ratios are the peer's time over ours: above 1,
ours is faster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import best_of, machine, save, table

import patterndsl as pd

SPECS: dict[str, str] = {
    "window 256": "causal & local(256)",
    "headline": "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))",
    "longformer": "local(256) | global(tokens=[0:4])",
    "strided 64": "causal & (local(64) | strided(64))",
    "dilated": "causal & dilated(window=64, dilation=8)",
    "causal": "causal",
}

QUICK = ["window 256", "headline", "longformer"]  # the others take minutes each


def flex_masks() -> dict[str, Callable[..., Any]]:
    """The same masks as FlexAttention writes them; summaries have none."""
    return {
        "window 256": lambda b, h, q, k: (k <= q) & (q - k < 256),
        "longformer": lambda b, h, q, k: ((q - k).abs() < 256) | (k < 4) | (q < 4),
        "strided 64": lambda b, h, q, k: (k <= q) & ((q - k < 64) | ((q - k) % 64 == 0)),
        "dilated": lambda b, h, q, k: (k <= q) & (q - k < 512) & ((q - k) % 8 == 0),
        "causal": lambda b, h, q, k: k <= q,
    }


def ours_and_dense(spec: str, q: Any, k: Any, v: Any) -> dict[str, float]:
    """Seconds of forward and of forward with backward, ours and dense with a mask."""
    attention = pd.compile(spec)
    parsed = pd.parse(spec)
    mask = None if "hierarchical" in spec else jnp.asarray(parsed.mask(q.shape[1]))[None, None]

    def dense(q: Any, k: Any, v: Any) -> Any:
        if mask is None:
            return jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return jax.nn.dot_product_attention(q, k, v, mask=mask)

    found = {}
    for name, f in (("ours", attention), ("dense", dense)):
        forward = jax.jit(f)
        both = jax.jit(jax.grad(lambda q, k, v, f=f: f(q, k, v).sum(), argnums=(0, 1, 2)))
        found[name] = best_of(lambda g=forward: g(q, k, v).block_until_ready())
        found[f"{name} grad"] = best_of(lambda g=both: jax.block_until_ready(g(q, k, v)))
    return found


def flex_call(mask: Callable[..., Any], n: int, arrays: tuple[np.ndarray, ...]) -> Callable[[], Any] | None:
    """FlexAttention's forward pass, None without torch."""
    try:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        return None
    q, k, v = (torch.from_numpy(a.transpose(0, 2, 1, 3).copy()) for a in arrays)
    block_mask = create_block_mask(mask, None, None, n, n, device="cpu")
    compiled = torch.compile(flex_attention)

    def call() -> Any:
        with torch.no_grad():
            return compiled(q, k, v, block_mask=block_mask)

    return call


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--specs", nargs="*", default=QUICK, choices=list(SPECS))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/cpu_peers.json")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    shape = (1, args.n, args.heads, args.head_dim)
    arrays = tuple(rng.standard_normal(shape, np.float32) for _ in range(3))
    q, k, v = (jnp.asarray(a) for a in arrays)
    rows = []
    for name in args.specs:
        found = ours_and_dense(SPECS[name], q, k, v)
        mask = flex_masks().get(name)
        call = flex_call(mask, args.n, arrays) if mask is not None else None
        peer = None if call is None else best_of(call)
        ms = {key: 1000 * s for key, s in found.items()}
        rows.append(
            [
                name,
                ms["ours"],
                ms["dense"],
                "-" if peer is None else 1000 * peer,
                found["dense"] / found["ours"],
                "-" if peer is None else peer / found["ours"],
                ms["ours grad"],
                found["ours grad"] / found["ours"],
                found["dense grad"] / found["ours grad"],
            ]
        )
        print(f"{name} done", file=sys.stderr, flush=True)
    header = [
        "spec",
        "ours ms",
        "dense ms",
        "flex ms",
        "dense/ours",
        "flex/ours",
        "grad ms",
        "grad/fwd",
        "dense/ours grad",
    ]
    print(f"n = {args.n}, 1 × {args.heads} heads × {args.head_dim}, float32; {machine()}")
    print(table(header, rows))
    if args.save:
        save(
            "cpu_peers",
            f"python benchmarks/cpu_peers.py --n {args.n} --save",
            [dict(zip(header, r, strict=True)) for r in rows],
        )


if __name__ == "__main__":
    main()
