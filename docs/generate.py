"""Write docs/patterns.md: every built-in pattern and every published one, with its picture and its cost.

    python docs/generate.py [--only NAME …]

Needs the plot extra. With ``--only``, which names sections as the page does, only these pictures are drawn
again; the page is written whole anyway. What is said of a pattern is its own docstring, or the header of its
file; `no_patterns.md` closes the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

import patterndsl as pd
from patterndsl import plot
from patterndsl.commands.patterns import meaning, signature
from patterndsl.patterns import builtins

DOCS = pathlib.Path(__file__).parent
TIMES = DOCS.parent / "benchmarks" / "results" / "catalogue.json"
LIBRARY = pathlib.Path(pd.__file__).parent / "grammar" / "lib"
SMALL, LARGE = 64, 2**14  # 8 × 8 and 128 × 128
HEAD_DIM = 8
CENTROIDS = np.random.default_rng(2).standard_normal((4, HEAD_DIM)).astype(np.float32)
CHOOSING = 2  # a layer in which Quest chooses
ALIKE = 8  # vectors that are fewer steps apart are alike


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a section shows: a spec in a picture at n, and another's cost at large_n."""

    picture: str
    cost: str
    n: int = SMALL
    large_n: int = LARGE


AT_LENGTH = {
    "axial": "axial(shape=[128, 128], axis=0)",
    "blocks": "blocks(logsparse, 64)",
    "butterfly": "butterfly(block=64)",
    "chunked": "chunked(256)",
    "cluster": "cluster(128, 128, centroids=mu)",
    "columns": "columns([0:16])",
    "dilated": "dilated(256, 4)",
    "fixed": "fixed(128, 8)",
    "global": "global(tokens=[0:16])",
    "local": "local(256)",
    "neighborhood": "neighborhood([128, 128], 13)",
    "pool": "pool(64)",
    "random": "random(3, block=64)",
    "recursive": "recursive(64)",
    "rows": "rows([0:16])",
    "segment_memory": "segment_memory(256, 256)",
    "segments": "segments(1024, 4)",
    "shift": "shift(local(256), 64)",
    "sinks": "sinks(16)",
    "strided": "strided(128)",
    "tglobal": "tglobal(64)",
    "tiles": "tiles([128, 128], 16, 3)",
    "transpose": "transpose(columns([0:16]))",
    "tree": "tree(4)",
    "windows": "windows([128, 128], 16)",
}
"""Examples of a size that 16,384 tokens might have."""

PICTURES = {
    "axial": "p.own_row(8, 8) | p.own_column(8, 8)",
    "bigbird": "p.bigbird(4, 2)",
    "combiner": "p.combiner(8)",
    "compressive": "p.compressive(8, 8, 4, 4)",
    "etc": "p.etc(4, 5)",
    "gemma3": "p.gemma3(16)",
    "gpt_oss": "p.gpt_oss(16)",
    "h_transformer": "p.h_transformer(4)",
    "llama4_chunked": "p.chunked_causal(16)",
    "longformer": "p.longformer(12, 2)",
    "longnet": "p.branch(8, 1) + p.branch(32, 4)",
    "longt5": "p.longt5(5, 8)",
    "minference": "vertical_slash(6, 12, last=16, first=2, near=4)",
    "mistral": "p.mistral(16)",
    "moba": "p.moba(8, 3)",
    "natten2d": "p.natten2d(8, 8, 3)",
    "nsa": "p.selected(4, 6)",
    "prefix_lm": "p.prefix_lm(16)",
    "quest": "p.quest(16, 4)",
    "radial": "p.radial(8, 4)",
    "reformer": "p.reformer(16, 2)",
    "routing": "p.routing_heads(4, 16)",
    "sliding_tile": "tiles([4, 4, 4], 2, [2, 1, 2])",
    "sparse_transformer_fixed": "p.sparse_transformer_fixed(8, 2)",
    "sparse_transformer_strided": "p.sparse_transformer_strided(8)",
    "streaming_llm": "p.streaming_llm(4, 16)",
    "swin": "p.shifted(8, 8, 4)",
    "transformer_xl": "p.transformer_xl(16, 16)",
}
"""What is drawn of a published pattern where its defaults are too large for a picture."""
COSTS = {
    "axial": "p.own_row(128, 128) | p.own_column(128, 128)",
    "natten2d": "p.natten2d(128, 128)",
    "radial": "p.radial(1024, 128)",
    "sliding_tile": "p.sliding_tile(18, 24, 32)",
    "swin": "p.shifted(128, 128, 8)",
}
"""Whose cost is told, where a file's defaults do not fit the length."""


def entries() -> Iterator[tuple[str, str, list[str], Entry]]:
    """For each pattern the name of its section, its heading, paragraphs, and what is shown."""
    for name, cls in sorted(builtins().items()):
        told = [meaning(cls), f"For example {', '.join(f'`{e}`' for e in cls.examples)}."]
        if cls.source:
            told.append(f"Source: {cls.source}.")
        small = cls.examples[0]
        yield name, f"`{signature(cls)}`", told, Entry(small, AT_LENGTH.get(name, small))
    for path in sorted(LIBRARY.glob("*.attn")):
        lines = path.read_text(encoding="utf-8").splitlines()
        header = [line[1:].strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]
        imported = f"import {path.stem} as p\npattern main = "
        drawn, cost = PICTURES.get(path.stem, "p"), COSTS.get(path.stem, "p")
        entry = Entry(imported + drawn, imported + cost)
        if path.stem == "sliding_tile":
            entry = dataclasses.replace(entry, large_n=18 * 24 * 32)
        yield f"{path.stem}.attn", f"`import {path.stem}`", [" ".join(header)], entry


def declared(text: str) -> str:
    """A whole spec, with the inputs that a pattern reads."""
    for name, kind in (("doc", "token"), ("mu", "centroids")):
        if name in text and "\n" not in text:
            return f"input {name}: {kind}\npattern main = {text}"
    return text


def inputs_of(spec: pd.Spec, n: int, centroids: Any = CENTROIDS) -> dict[str, Any]:
    """Four documents, a tree of tokens of which every third begins a branch, and centroids."""
    tree = pd.tree_order([i - 1 if i % 3 or i < n // 2 else i - 3 for i in range(n)])
    given = {"doc": np.arange(n) * 4 // n, **tree}
    known = {"token": given, "centroids": dict.fromkeys(spec.inputs, centroids)}
    return {name: known[kind][name] for name, kind in spec.module.inputs.items()}


def drawn_of(spec: pd.Spec, n: int) -> plot.Picture:
    """The picture; of what is chosen from q and k, that of a walk, as queries and as keys."""
    inputs = inputs_of(spec, n)
    if not spec.bind(n, layer=CHOOSING).holds_choice:
        return plot.picture(spec, n, inputs=inputs)
    steps = np.cumsum(np.random.default_rng(1).standard_normal((n + ALIKE, 1, HEAD_DIM), np.float32), axis=0)
    walk = steps[ALIKE:] - steps[:-ALIKE]
    slots = spec.slots(n, layer=CHOOSING, inputs=inputs, operands=(walk, walk))
    kept = (slots.counts[:, :n] > 0).astype(float)
    return plot.Picture(str(spec), n, (plot.Panel(f"tokens: {n}", 0, kept),), exact=True)


def figures(name: str, entry: Entry) -> str:
    """Growth, what is kept, what the plan computes for it, and the time that was measured."""
    report = pd.analyze(declared(entry.cost), n=entry.large_n)
    found = report.at(entry.large_n)
    exact = isinstance(found.slots, int)
    queries = entry.large_n * report.num_heads
    kept = (found.slots if exact else found.slots[1]) / queries
    what = entry.cost.split("main = ")[-1]
    said = f"Growth {report.growth}. At n = {entry.large_n:,} of `{what}` a query keeps "
    said += f"{'' if exact else 'at most '}{kept:,.1f} slots on average"
    if exact and isinstance(found.waste, float):
        said += f", and the plan computes {found.waste:.2f} for each"
    elif found.cost is not None and not exact:
        computed = found.cost.computed / queries
        said += f", and the plan reckons with computing {computed:,.1f} pairs for it"
    row = measured().get(name)
    if row is not None and (row["spec"], row["n"]) == (entry.cost, entry.large_n):
        heads = "a head takes" if row["heads"] == 1 else f"{row['heads']} heads take"
        said += f"; {heads} {row['ms']:,.1f} ms, and all pairs {row['full ÷ ours']:,.1f} times as long"
    return said.replace("`p`", "the file's `main`").replace("`p.", "`") + "."


@functools.cache
def measured() -> dict[str, Any]:
    """For each section the row of `benchmarks/catalogue.py`."""
    rows = json.loads(TIMES.read_text("utf-8"))["rows"] if TIMES.exists() else []
    return {row["pattern"]: row for row in rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="draw these pictures alone")
    only = parser.parse_args(argv).only
    os.environ["PATTERNDSL_CACHE"] = tempfile.mkdtemp()  # neither what was measured here nor the CPU kernel
    pictures = DOCS / "pictures"
    pictures.mkdir(exist_ok=True)
    page = ["# Patterns", INTRODUCTION]
    published = False
    for name, heading, told, entry in entries():
        if name.endswith(".attn") and not published:
            published = True
            page.append("## Published patterns, to import")
        page += [f"### {heading}", *told, figures(name, entry)]
        file = pictures / f"{name.replace('.attn', '_published')}.png"
        if only is None or name in only:
            spec = pd.parse(declared(entry.picture))
            title = entry.picture.split("main = ")[-1].replace("p.", "")
            plot.save(drawn_of(spec, entry.n), file, title=name if title == "p" else title)
        page.append(f"![{name}](pictures/{file.name})")
        print(name, flush=True)
    page.append((DOCS / "no_patterns.md").read_text(encoding="utf-8").strip())
    (DOCS / "patterns.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")


INTRODUCTION = """\
Made by `python docs/generate.py` from what the patterns say of themselves. Pictures have a row for each query
and a column for each key, or summary, of 64 tokens; what is kept is dark. What is chosen from q and k is
drawn for vectors of which neighbours are alike, as queries and as keys. What is computed for it depends on
the values, and is told for even groups, where queries that chose alike are brought together, and otherwise
for no tile skipped. Times are those of `benchmarks/catalogue.py`: forward, float32, heads of 64, on two
cores.

## Built-in patterns"""

if __name__ == "__main__":
    main()
