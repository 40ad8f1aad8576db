"""Is the declared growth the one that is paid? Measured time against n, for the library's patterns.

    python benchmarks/realised_growth.py [--only NAME …] [--save]

Each pattern of `grammar/lib` that is not chosen from q and k, and has no grid of one size, runs at growing n
(float32, head size 32), and `recursive`. The exponent of time is the slope of a least-squares line through
log time against log n; the declared one that of the class named by `analyze` over the same lengths (n log n
has a slope a little above 1). Patterns of a linear class go to 1M tokens, most others to 64k, quadratic ones
to 32k; parameters are small, and some patterns have more heads, so that the class shows at the first length.
A class that is an upper bound only (O, for data that decides) may be beaten, not exceeded.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, quickest, save, table

import patterndsl as pd

LIBRARY = pathlib.Path(pd.__file__).parent / "grammar" / "lib"
LINEAR = (2**14, 2**16, 2**18, 2**20)
MIDDLE = (2**12, 2**13, 2**14, 2**15, 2**16)
SQUARE = (2**12, 2**13, 2**14, 2**15)
LARGE = (2**13, 2**14, 2**15, 2**16)
TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Case:
    """A pattern of the library: the lengths at which it runs, its params, and the pattern of the file (p)
    that is compiled where it is not `main`, so that sizes of a grid can follow n."""

    lengths: tuple[int, ...]
    params: dict[str, int] = dataclasses.field(default_factory=dict)
    main: str | None = None
    layer: int = 0
    heads: int = 1


SIDES = "height=ceil(sqrt(n)), width=ceil(sqrt(n))"

CASES = {
    "axial": Case((2**16, 2**18, 2**20), main=f"p.own_row({SIDES}) | p.own_column({SIDES})"),
    "bigbird": Case(LINEAR[:3], {"block": 64, "random_blocks": 2}),
    "block_diffusion": Case(SQUARE),
    "combiner": Case((2**14, 2**16, 2**18), main="p.combiner(ceil(sqrt(n)))", heads=4),
    "compressive": Case(LINEAR, {"segment": 128, "memory": 128, "compressed": 64}),
    "document_causal": Case(SQUARE),
    "etc": Case(LINEAR[1:], {"globals": 16, "radius": 32}),
    "gemma3": Case(LINEAR, {"window": 128}),
    "gpt_oss": Case(LINEAR, layer=0),
    "h_transformer": Case(LINEAR, heads=4),
    "llama4_chunked": Case(LINEAR, {"size": 256}),
    "logsparse": Case(MIDDLE, heads=4),
    "longt5": Case(LARGE[1:], {"radius": 15, "block": 4}),
    "longformer": Case(LINEAR[:3], {"window": 128}),
    "longnet": Case(LINEAR[:3], {"segment_1": 128, "segment_2": 256}),
    "mistral": Case(LINEAR, {"window": 128}),
    "natten2d": Case(LINEAR, main=f"p.natten2d({SIDES})"),
    "prefix_lm": Case(SQUARE),
    "radial": Case(SQUARE, main="p.radial(ceil(n / 16))"),
    "recursive": Case(LINEAR, main="recursive(64)", heads=4),
    "sparse_transformer_fixed": Case(LARGE, {"block": 16, "summary": 8}),
    "sparse_transformer_strided": Case((2**15, 2**16, 2**17, 2**18), {"stride": 8}),
    "star": Case(LINEAR[1:]),
    "streaming_llm": Case(LINEAR, {"window": 128}),
    "swin": Case((2**18, 2**20, 2**22), main=f"p.plain({SIDES}, window=8)"),
    "transformer_xl": Case(LINEAR, {"segment": 128, "memory": 128}),
}


def runner(attention: Any, n: int, heads: int, inputs: tuple[str, ...]) -> Callable[[], Any]:
    """One call at n that waits for its result."""
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (1, n, heads, 32)) for key in keys)
    given = {name: jnp.arange(n, dtype=jnp.int32) // 512 for name in inputs}
    return lambda: attention(q, k, v, **given).block_until_ready()


def slope(lengths: tuple[int, ...], values: list[float]) -> float:
    """The exponent of n that values follow."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def measure(name: str, case: Case) -> list[Any]:
    """The row of one pattern."""
    file = LIBRARY / f"{name}.attn"
    if case.main is None:
        spec = pd.load(file)
    else:
        spec = pd.parse(f"{f'import {name} as p' if file.exists() else ''}\npattern main = {case.main}")
    attention = pd.compile(spec, params=case.params, layer=case.layer)
    calls = [runner(attention, n, case.heads, spec.inputs) for n in case.lengths]
    times = quickest(calls, turn=0.4)  # the first call after a longer one finds its memory given back
    measured = ", ".join(f"{n:,}: {t:.4g} s" for n, t in zip(case.lengths, times, strict=True))
    print(f"  {name} {measured}", file=sys.stderr, flush=True)
    last = case.lengths[-1]
    report = pd.analyze(spec, n=last, params=case.params, layer=case.layer)
    growth = report.growth
    logs = 0.0 if growth.rate is None else float(growth.rate.log)
    power = 0.0 if growth.rate is None else float(growth.rate.power)
    declared = power + logs * slope(case.lengths, [math.log(n) for n in case.lengths])
    found = slope(case.lengths, times)
    over = found - declared
    fits = abs(over) <= TOLERANCE or (not growth.tight and over < 0)
    lengths = f"{case.lengths[0]:,}–{last:,}"
    return [name, str(growth), lengths, declared, found, over, "yes" if fits else "NO", times[-1]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--save", action="store_true", help="these rows of benchmarks/results/realised_growth.json"
    )
    args = parser.parse_args(argv)
    rows = [measure(name, CASES[name]) for name in args.only]
    header = ["pattern", "declared", "n", "exponent", "measured", "difference", "within 0.1", "last s"]
    print(f"float32, head size 32; {machine()}")
    print(table(header, rows))
    if args.save:
        command = "python benchmarks/realised_growth.py --save"
        save("realised_growth", command, [dict(zip(header, r, strict=True)) for r in rows], key=header[0])


if __name__ == "__main__":
    main()
