"""The native CPU kernel beside the XLA backend and its peers, in one run: forward and backward.

    python -m patterndsl.backends.cpu_native build
    python benchmarks/cpu_native.py [--n 8192] [--save]

float32, batch 1, 4 heads of 64. Peers, as in `cpu_peers`: `jax.nn.dot_product_attention` with the pattern as
a dense mask (none for summaries), and `torch.compile(flex_attention)` where torch is installed (forward
only). Ratios are their time over the native kernel's: above 1, the kernel is faster.
The times are the least of some rounds, in each of which all but dense attention take their turn.
"÷ forward" is the time of the gradient less that of the forward pass, over the forward pass.

    python benchmarks/cpu_native.py --bars [--save]

has the forward pass of `BARS` at n = 16384 beside dense attention, in both CPU backends: the ratio must be at
least 10.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import best_of, quickest, save, table
from cpu_peers import SPECS, flex_call, flex_masks

import patterndsl as pd
from patterndsl.backends.cpu_native import build

MEASURED = ("window 256", "headline", "longformer", "strided 64")
ROUNDS = 7

BARS = ("strided(64)", "dilated(256, 4)", "hierarchical(4)", "neighborhood([128, 128], 13)")
BAR = 10.0  # dense attention's time over ours


def calls(spec: str, backend: str, arrays: tuple[jax.Array, ...]) -> list[Callable[[], Any]]:
    """The forward pass, and the gradient, which includes it."""
    attention = pd.compile(spec, backend=backend)
    forward = jax.jit(attention)
    gradient = jax.jit(jax.grad(lambda q, k, v: attention(q, k, v).sum(), argnums=(0, 1, 2)))
    return [
        lambda: forward(*arrays).block_until_ready(),
        lambda: jax.block_until_ready(gradient(*arrays)),
    ]


def row(name: str, n: int, peers: bool) -> list[Any]:
    """A pattern's times in milliseconds, and ratios to the kernel's; None where a peer has no such thing."""
    spec = SPECS[name]
    rng = np.random.default_rng(0)
    host = tuple(rng.standard_normal((1, n, 4, 64), dtype=np.float32) for _ in range(3))
    arrays = tuple(jnp.asarray(a) for a in host)
    peers = peers and "hierarchical" not in spec
    flexed = flex_call(flex_masks()[name], n, host) if peers else None
    runs = [*calls(spec, "cpu_native", arrays), *calls(spec, "xla", arrays)]
    ours, gradient, xla, xla_gradient, *other = quickest(runs + ([] if flexed is None else [flexed]), ROUNDS)
    dense = None
    if peers:
        mask = jnp.asarray(pd.parse(spec).mask(n))[None, None]
        run = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, mask=mask))
        dense = best_of(lambda: run(*arrays).block_until_ready(), repeats=2) / ours
    return [
        name,
        1e3 * ours,
        xla / ours,
        other[0] / ours if other else None,
        dense,
        1e3 * (gradient - ours),
        (gradient - ours) / ours,
        xla_gradient / gradient,
    ]


def bar(spec: str, n: int = 16384) -> list[Any]:
    """A pattern's forward pass in both backends, in milliseconds, and dense attention's time over each."""
    rng = np.random.default_rng(0)
    arrays = tuple(jnp.asarray(rng.standard_normal((1, n, 4, 64), dtype=np.float32)) for _ in range(3))
    found = []
    for backend in ("cpu_native", "xla"):
        attention = jax.jit(pd.compile(spec, backend=backend))
        found.append(best_of(lambda f=attention: f(*arrays).block_until_ready()))
    mask = None if "hierarchical" in spec else jnp.asarray(pd.parse(spec).mask(n))[None, None]
    run = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, mask=mask))
    dense = best_of(lambda: run(*arrays).block_until_ready(), repeats=3, budget=20.0)
    ratios = [dense / s for s in found]
    return [
        spec,
        *(1e3 * s for s in found),
        1e3 * dense,
        *ratios,
        *("yes" if r >= BAR else "NO" for r in ratios),
    ]


BAR_HEADER = (
    *("pattern", "native ms", "XLA ms", "dense ms", "dense ÷ native", "dense ÷ XLA"),
    *(f"native ≥ {BAR:.0f}", f"XLA ≥ {BAR:.0f}"),
)
HEADER = ("pattern", "ms", "XLA", "flex", "dense", "backward ms", "÷ forward", "XLA gradient")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--only", choices=MEASURED, action="append", help="these patterns (all)")
    parser.add_argument("--no-peers", action="store_true", help="neither dense nor FlexAttention")
    parser.add_argument(
        "--save", action="store_true", help="write to benchmarks/results/cpu_native.json or speed_bars.json"
    )
    parser.add_argument("--bars", action="store_true", help="patterns at n = 16384 beside dense attention")
    options = parser.parse_args()
    why = build.load()
    if why is not None:
        print(f"the kernel is not at hand: {why}; run `{build.COMMAND}`", file=sys.stderr)
        return 1
    if options.bars:
        rows = [bar(spec) for spec in BARS]
        print(table(BAR_HEADER, rows))
        if options.save:
            save("speed_bars", " ".join(sys.argv), [dict(zip(BAR_HEADER, r, strict=True)) for r in rows])
        return 0
    rows = [row(name, options.n, not options.no_peers) for name in options.only or MEASURED]
    print(table(HEADER, [["–" if x is None else x for x in r] for r in rows]))
    if options.save:
        save("cpu_native", " ".join(sys.argv), [dict(zip(HEADER, r, strict=True)) for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
