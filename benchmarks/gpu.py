"""The GPU backend beside torch's FlexAttention, cuDNN and XLA, on the GPU at hand.

    python benchmarks/gpu.py [--n 16384 …] [--head-dim 64 128] [--only NAME …] [--peers NAME …] [--save]

bfloat16, batch 1, 16 heads, forward, and forward with backward. "flex": `torch.compile(flex_attention)` with
its block mask made beforehand; "cudnn": `jax.nn.dot_product_attention` over all keys up to the query, which
has no other patterns; "xla": this project's XLA backend. Cases are compiled side by side, in processes of
their own, and take turns at the device when they are timed. Times are the least of some rounds of several
calls in a row, as calls are queued on the device; each peer's ratio is its time over ours.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import jax
import jax.numpy as jnp
from common import machine, save, table

import patterndsl as pd

HEADS = 16
SIDE = 128  # of the grid of 16,384 tokens


SPECS: dict[str, tuple[Callable[[int], str], Callable[[int], Any]]] = {
    "causal": (lambda n: "causal", lambda n: lambda b, h, q, k: q >= k),
    "window": (lambda n: "causal & local(1024)", lambda n: lambda b, h, q, k: (q >= k) & (q - k < 1024)),
    "strided": (
        lambda n: "causal & (local(128) | strided(128))",
        lambda n: lambda b, h, q, k: (q >= k) & ((q - k < 128) | ((q - k) % 128 == 0)),
    ),
    "neighbourhood": (lambda n: f"neighborhood([{n // SIDE}, {SIDE}], 13)", lambda n: _near(n)),
}
"""For each name the spec and torch's mask function, by the length."""


def _near(n: int) -> Any:
    """The 13 × 13 nearest of a grid, shifted inside at its borders."""
    import torch

    def axis(q: Any, k: Any, size: int) -> Any:
        first = torch.clamp(q - 6, 0, size - 13)
        return (k >= first) & (k < first + 13)

    def near(b: Any, h: Any, q: Any, k: Any) -> Any:
        return axis(q // SIDE, k // SIDE, n // SIDE) & axis(q % SIDE, k % SIDE, SIDE)

    return near


TURN: Any = None  # held by the process that measures


def take_turns(lock: Any) -> None:
    """One process measures at a time."""
    global TURN
    TURN = lock


def milliseconds(
    run: Callable[[], Any], wait: Callable[[Any], Any], rounds: int = 4, calls: int = 8
) -> float:
    """The least time of a call, of some rounds of several calls in a row."""
    wait(run())
    least = math.inf
    with TURN or contextlib.nullcontext():
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                out = run()
            wait(out)
            least = min(least, (time.perf_counter() - start) / calls)
    return 1e3 * least


def of_jax(attend: Callable[..., Any], n: int, head_dim: int) -> list[float]:
    """Forward, and forward with backward."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, d = (jax.random.normal(key, (1, n, HEADS, head_dim), jnp.bfloat16) for key in keys)
    forward = jax.jit(attend)
    both = jax.jit(lambda q, k, v, d: jax.vjp(attend, q, k, v)[1](d))
    ready = jax.block_until_ready
    return [milliseconds(lambda: forward(q, k, v), ready), milliseconds(lambda: both(q, k, v, d), ready)]


def of_flex(mask: Any, n: int, head_dim: int) -> list[float]:
    """The same of FlexAttention."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    made = [torch.randn(1, HEADS, n, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    q, k, v = (x.requires_grad_() for x in made[:3])
    blocks = torch.compile(create_block_mask)(mask, None, None, n, n, device="cuda")
    compiled = torch.compile(flex_attention, dynamic=False)

    def forward() -> Any:
        return compiled(q, k, v, block_mask=blocks)

    def both() -> Any:
        return torch.autograd.grad(forward(), (q, k, v), made[3])

    return [milliseconds(run, lambda _: torch.cuda.synchronize()) for run in (forward, both)]


def row(name: str, n: int, head_dim: int, peers: list[str]) -> dict[str, Any]:
    """A pattern's times and its peers' ratios."""
    text, mask = (make(n) for make in SPECS[name])
    ours = of_jax(pd.compile(text, backend="pallas_gpu"), n, head_dim)
    found: dict[str, Any] = {"case": f"{name}, n = {n}, heads of {head_dim}", "spec": text}
    found |= {"forward ms": ours[0], "both ms": ours[1]}
    cudnn = _cudnn if name == "causal" else None
    runs: dict[str, Any] = {
        "cudnn": cudnn and (lambda: of_jax(cudnn, n, head_dim)),
        "xla": lambda: of_jax(pd.compile(text, backend="xla"), n, head_dim),
        "flex": lambda: of_flex(mask, n, head_dim),
    }
    for peer in peers:
        try:
            theirs = runs[peer]() if runs[peer] else [None, None]
        except Exception as error:
            print(f"{name} {peer}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True)
            theirs = [None, None]
        for what, its, mine in zip(("forward", "both"), theirs, ours, strict=True):
            found[f"{peer} {what}"] = None if its is None else its / mine
    return found


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--head-dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--only", nargs="*", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--peers", nargs="*", default=["cudnn", "xla", "flex"])
    parser.add_argument("--jobs", type=int, default=4, help="cases compiled side by side")
    parser.add_argument("--save", action="store_true", help="in benchmarks/results/gpu.json")
    args = parser.parse_args(argv)
    cases = [(name, n, d, args.peers) for n in args.n for d in args.head_dim for name in args.only]
    context = multiprocessing.get_context("spawn")
    rows = []
    with ProcessPoolExecutor(args.jobs, context, take_turns, (context.Lock(),)) as pool:
        for done in as_completed([pool.submit(row, *case) for case in cases]):
            rows.append(done.result())
            shown = {k: round(x, 3) if isinstance(x, float) else x for k, x in rows[-1].items()}
            print(shown, flush=True)
    print(f"{jax.devices()[0].device_kind}, 1 × {HEADS} heads, bfloat16; {machine()}")
    print(table(list(rows[0]), [list(r.values()) for r in rows]))
    if args.save:
        device = {"device": jax.devices()[0].device_kind}
        command = shlex.join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if argv is None else argv)])
        save("gpu", command, [r | device for r in rows], key="case")


if __name__ == "__main__":
    main()
