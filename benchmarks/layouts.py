"""What an order of queries and tokens is worth: tiles, and pairs computed for each pair kept.

    python benchmarks/layouts.py [--only NAME …] [--save]

Each spec is planned as it comes and in the order that it names (`butterfly` and `logsparse` as parts, each
member in its own), both in tiles of 128 × 128 and in those of `TILES` that compute the fewest pairs.
``gain``: pairs computed as they come ÷ in order, in tiles of 128 × 128 and in the best of each. Nothing runs;
how fast tiles of a size are is another question.

A second table has what `compile(spec).plan(n)` chooses by the cost model, with the rates of each CPU backend,
for 4 heads of 64 in float32: pairs computed for each pair kept, beside the `BARS` that this must not exceed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

from common import machine, save, table

import patterndsl as pd
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.ir.normal import Branch, branches, walk
from patterndsl.ir.resolve import at_length
from patterndsl.plan.cost import Workload
from patterndsl.plan.orders import Identity, Order
from patterndsl.plan.parts import part_in
from patterndsl.plan.plan import BranchPlan, HeadGroup, Plan
from patterndsl.plan.stats import described
from patterndsl.plan.tables import Axis

TILES = ((16, 16), (32, 16), (32, 32), (64, 16), (64, 64), (128, 16), (128, 64), (128, 128))
SPECS = {
    "window": ("causal & local(512)", 65536),
    "strided 64": ("causal & strided(64)", 16384),
    "strided 128": ("strided(128)", 16384),
    "strided 128, causal": ("causal & strided(128)", 16384),
    "dilated": ("dilated(256, 4)", 65536),
    "dilated, causal": ("causal & dilated(256, 4)", 65536),
    "LongNet's branch": ("causal & segments(8192, 4)", 65536),
    "fixed's columns": ("causal & columns([127::128])", 16384),
    "neighborhood 13": ("neighborhood([128, 128], 13)", 16384),
    "neighborhood, dilated": ("neighborhood([128, 128], 7, dilation=4)", 16384),
    "neighborhood 7": ("neighborhood([128, 128], 7)", 16384),
    "butterfly": ("butterfly", 16384),
    "logsparse": ("logsparse", 16384),
    "sliding tiles": ("tiles([32, 32, 16], [4, 8, 8], [3, 3, 1])", 16384),
    "shifted windows": ("windows([128, 128], 8, shift=4)", 16384),
    "axial": ("axial([128, 128], 0)", 16384),
    "hierarchical": ("causal & hierarchical(4)", 65536),
    "hierarchical, leaf 64": ("causal & hierarchical(4, leaf=64)", 65536),
}
BARS = {
    "causal & local(512)": (65536, 1.3),
    "strided(64)": (16384, 1.5),
    "causal & strided(64)": (16384, 1.5),
    "dilated(256, 4)": (65536, 1.5),
    "causal & dilated(256, 4)": (65536, 1.5),
    "neighborhood([128, 128], 13)": (16384, 4.0),
    "hierarchical(4)": (65536, 5.0),
    "causal & hierarchical(4)": (65536, 5.0),
    "hierarchical(4, leaf=64)": (65536, 2.5),
    "causal & hierarchical(4, leaf=64)": (65536, 2.5),
}
KEPT = {"LongNet's branch": 8 * 2048 * 2049 // 2}
"""Where `analyze` has but bounds: 8 segments of 2048 positions that see each other."""


class Found(NamedTuple):
    """A plan: in which order and tiles, how many of them, the pairs that it computes, and seconds to make."""

    order: str
    tile: tuple[int, int]
    blocks: int
    computed: int
    seconds: float

    @classmethod
    def of(cls, node: Node, pieces: Sequence[tuple[Branch, Order]], n: int, tile: tuple[int, int]) -> Found:
        start = time.perf_counter()
        parts = tuple(part_in(branch, order, Axis(0, n, tile[0]), n, tile[1]) for branch, order in pieces)
        seconds = time.perf_counter() - start
        plan = Plan(n, n, 0, 1, *tile, (HeadGroup((0,), node, (BranchPlan(parts),)),))
        stats = plan.stats()
        orders = ", ".join(str(order) for _, order in pieces)
        return cls(orders, tile, stats.full_blocks + stats.partial_blocks, stats.computed, seconds)


def ordered(node: Node, n: int) -> list[tuple[Branch, Order]]:
    """What each part keeps and in which order: the first that is named, or those of the members."""
    pieces = node.members(n) if isinstance(node, Pattern) else ()
    found = []
    for piece in pieces or (node,):
        (branch,) = branches(piece, n)
        named = [order for p in walk(piece) if isinstance(p, Pattern) for order in p.layouts(n)]
        found.append((branch, (*named, Identity())[0]))
    return found


def measure(name: str) -> list[object]:
    """A row of the table."""
    text, n = SPECS[name]
    spec = pd.parse(text)
    node = at_length(spec.module.main, n)
    (branch,) = branches(node, n)
    kept = KEPT.get(name) or pd.analyze(spec, n=n).slots
    assert isinstance(kept, int), f"{name}: the pairs are not counted exactly"
    usual, best = [], []
    for pieces in ([(branch, Identity())], ordered(node, n)):
        found = [Found.of(node, pieces, n, tile) for tile in TILES]
        usual.append(found[-1])
        best.append(min(found, key=lambda f: f.computed))
    gains = [f[0].computed / f[-1].computed for f in (usual, best)]
    row: list[object] = [f"{name}, n = {n}", kept]
    for f in (usual[0], usual[-1]):
        row += [f.blocks, f.computed / kept]
    row.append(gains[0])
    for f in (best[0], best[-1]):
        row += ["×".join(map(str, f.tile)), f.computed / kept]
    return [*row, gains[1], best[-1].order, 1000 * usual[-1].seconds]


def chosen(text: str, backend: str) -> list[object]:
    """A row of the second table."""
    n, bar = BARS[text]
    attention = pd.compile(text)
    workload = Workload(heads=4, kv_heads=4, platform="cpu", backend=backend)
    start = time.perf_counter()
    plan = attention.plan(n, num_heads=4, workload=workload)
    seconds = time.perf_counter() - start
    decision = plan.groups[0].branches[0].decision
    assert decision is not None
    ratio = plan.stats().computed / (4 * pd.analyze(text, n=n).slots)
    what = described(decision.chosen, decision.members)
    return [f"{text}, n = {n}", backend, ratio, bar, "yes" if ratio <= bar else "NO", 1000 * seconds, what]


CHOSEN = ("spec", "rates of", "computed ÷ kept", "bar", "held", "ms to choose", "chosen")
HEADER = (
    *("spec", "kept", "as they come: tiles", "÷ kept", "in order: tiles", "÷ kept", "gain"),
    *("best as they come", "÷ kept", "best in order", "÷ kept", "gain", "order", "ms to plan"),
)
KEYS = (
    *(
        "spec",
        "kept",
        "plain tiles",
        "plain computed ÷ kept",
        "ordered tiles",
        "ordered computed ÷ kept",
        "gain",
    ),
    *("best plain tile", "best plain computed ÷ kept", "best ordered tile", "best ordered computed ÷ kept"),
    *("best gain", "order", "ms to plan"),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument(
        "--save", action="store_true", help="write results/layouts.json and chosen_plans.json"
    )
    args = parser.parse_args(argv)
    rows = [measure(name) for name in args.only]
    print(f"tiles and pairs computed; {machine()}")
    print(table(HEADER, rows))
    bars = [chosen(text, backend) for text in BARS for backend in ("cpu_native", "xla")]
    print(table(CHOSEN, bars))
    if args.save:
        command = "python benchmarks/layouts.py --save"
        save("layouts", command, [dict(zip(KEYS, r, strict=True)) for r in rows])
        save("chosen_plans", command, [dict(zip(CHOSEN, r, strict=True)) for r in bars])


if __name__ == "__main__":
    main()
