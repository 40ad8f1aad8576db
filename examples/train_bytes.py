"""Train a small byte-level language model with a sparse pattern, and see what the pattern costs in loss.

    python examples/train_bytes.py                     # three models, 300 steps each, minutes on a CPU
    python examples/train_bytes.py --steps 20 --n 512  # a quick look

The text is the source code of Python's standard library: real, on every machine, and full of references to
names defined far above. The same model, from the same initial weights and over the same batches, is trained
with the headline-like pattern, with dense causal attention and with the pattern's window alone.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sysconfig
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import patterndsl as pd

Params = dict[str, Any]
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

PATTERN = "causal & (local(64) | hierarchical(factor=4, leaf=64))"
WINDOW = "causal & local(64)"


def stdlib_text(limit: int = 4_000_000) -> np.ndarray:
    """The standard library's sources as bytes, files in name order, uint8 [length]."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    parts, total = [], 0
    for path in sorted(root.glob("*.py")):
        parts.append(path.read_bytes())
        total += len(parts[-1])
        if total >= limit:
            break
    return np.frombuffer(b"\n".join(parts)[:limit], np.uint8)


def batches(text: np.ndarray, n: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Random stretches of n + 1 bytes, int32 [batch, n + 1]."""
    rng = np.random.default_rng(seed)
    while True:
        at = rng.integers(0, len(text) - n - 1, batch)
        yield np.stack([text[i : i + n + 1] for i in at]).astype(np.int32)


def init(key: jax.Array, layers: int, width: int, heads: int) -> Params:
    """Weights of a pre-norm transformer without position embeddings (RoPE is applied in attention)."""

    def matrix(rows: int, columns: int) -> jax.Array:
        nonlocal key
        key, use = jax.random.split(key)
        return jax.random.normal(use, (rows, columns)) * rows**-0.5

    blocks = [
        {
            "qkv": matrix(width, 3 * width),
            "out": matrix(width, width) / np.sqrt(2 * layers),
            "up": matrix(width, 4 * width),
            "down": matrix(4 * width, width) / np.sqrt(2 * layers),
        }
        for _ in range(layers)
    ]
    return {"embed": matrix(256, width) * 4, "blocks": blocks, "head": matrix(width, 256)}


def norm(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def rope(x: jax.Array) -> jax.Array:
    """Rotary positions (Su et al. 2021) on x [B, T, N, H]."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def loss(params: Params, tokens: jax.Array, attend: Attend, heads: int) -> jax.Array:
    """Mean cross-entropy of the next byte, in bits."""
    x = params["embed"][tokens[:, :-1]]
    for block in params["blocks"]:
        q, k, v = jnp.split(norm(x) @ block["qkv"], 3, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v))
        x = x + attend(rope(q), rope(k), v).reshape(x.shape) @ block["out"]
        x = x + jax.nn.gelu(norm(x) @ block["up"]) @ block["down"]
    logits = jax.nn.log_softmax(norm(x) @ params["head"])
    picked = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)
    return -jnp.mean(picked) / np.log(2)


def adam(params: Params, grads: Params, state: Any, step: jax.Array, rate: float) -> tuple[Params, Any]:
    """One step of Adam (Kingma and Ba 2014), warmed up over 20 steps."""
    m, v = state
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
    v = jax.tree.map(lambda a, g: 0.98 * a + 0.02 * g * g, v, grads)
    t = step + 1
    rate = rate * jnp.minimum(1.0, t / 20)

    def move(p: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return p - rate * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.98**t)) + 1e-8)

    return jax.tree.map(move, params, m, v), (m, v)


def train(name: str, attend: Attend, text: np.ndarray, args: argparse.Namespace) -> float:
    """Train one model; returns its loss on held-out text, bits per byte."""
    split = len(text) * 9 // 10
    params = init(jax.random.key(0), args.layers, args.width, args.heads)
    zeros = jax.tree.map(jnp.zeros_like, params)
    bits = functools.partial(loss, attend=attend, heads=args.heads)

    @jax.jit
    def update(
        params: Params, state: Any, step: jax.Array, tokens: jax.Array
    ) -> tuple[Params, Any, jax.Array]:
        value, grads = jax.value_and_grad(bits)(params, tokens)
        params, state = adam(params, grads, state, step, args.rate)
        return params, state, value

    state, feed, start = (zeros, zeros), batches(text[:split], args.n, args.batch, seed=1), 0.0
    for step in range(args.steps):
        params, state, value = update(params, state, jnp.asarray(step), next(feed))
        if step == 0:
            value.block_until_ready()
            start = time.perf_counter()  # compilation is not training
        if (step + 1) % max(1, args.steps // 5) == 0:
            print(f"  {name:8} step {step + 1:4}  {float(value):.3f} bits per byte", flush=True)
    seconds = (time.perf_counter() - start) / max(1, args.steps - 1)
    evaluate = jax.jit(bits)
    held = batches(text[split:], args.n, args.batch, seed=2)
    final = float(np.mean([evaluate(params, next(held)) for _ in range(args.evaluations)]))
    print(f"  {name:8} held out  {final:.3f} bits per byte, {1000 * seconds:.0f} ms a step", flush=True)
    return final


def dense(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, is_causal=True)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pattern", default=PATTERN, help="spec text (default: %(default)s)")
    parser.add_argument("--window", default=WINDOW, help="the window alone (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--evaluations", type=int, default=8)
    args = parser.parse_args(argv)
    text = stdlib_text()
    print(f"{len(text):,} bytes of the standard library, n = {args.n}, {args.steps} steps")
    models = {"pattern": pd.compile(args.pattern), "dense": dense, "window": pd.compile(args.window)}
    found = {name: train(name, attend, text, args) for name, attend in models.items()}
    print(f"\npattern  {args.pattern}\nwindow   {args.window}\n")
    print(
        f"{'':8} bits per byte, held out\n"
        + "\n".join(f"{name:8} {bits:.3f}" for name, bits in found.items())
    )
    return found


if __name__ == "__main__":
    main()
