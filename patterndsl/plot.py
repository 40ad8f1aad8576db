"""Pictures of a pattern: what each query sees of the tokens, and of the summaries level by level.

Every panel has the queries from top to bottom and the *tokens* from left to right: a summary is drawn over
the tokens for which it stands. A cell's shade is the share of its (query, token) pairs that are kept.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patterndsl.diagnostics import BadCall, ChosenFromData, InputShape, SpecError
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.interval import Interval, classify
from patterndsl.ir.nodes import Heads, Layers, Node, Pool, Where
from patterndsl.ir.normal import TOKENS, Term, branches, has_summaries, slot_index, walk
from patterndsl.ir.resolve import inline, pick_layer, set_params
from patterndsl.spec import Spec, check_inputs, of_kind

EXACT = 1024
"""Up to this n every pair is looked at; beyond, a sample of each cell."""
SAMPLES = 12
"""Queries, and tokens, looked at in each cell of a sampled picture."""
MOST_POSITIONS = 4096
"""Queries, and tokens, looked at in a sampled picture (at least two in each cell)."""
AT_ONCE = 2**21
"""Pairs looked at at a time."""
FAINT = 1e-6
"""Density of a cell of a sampled picture of which nothing is known."""
MOST_STEPS = 2_000
"""Longest loop over the tokens of a chunk that a picture may take."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Panel:
    """``density`` [rows, columns] in 0 … 1 of one source of slots; level 0 is the tokens."""

    title: str
    level: int
    density: Floats


@dataclasses.dataclass(frozen=True)
class Picture:
    """The panels of one head's pattern at n tokens. ``exact``: each pair was counted, not a sample."""

    title: str
    n: int
    panels: tuple[Panel, ...]
    exact: bool


def drawable(spec: Spec, n: int, params: Mapping[str, int] | None, head: int, layer: int) -> Node:
    """The pattern of one head at n. Raises SpecError, also where it is chosen from q and k."""
    node = spec.bind(n, params=params, head=head, layer=layer)
    if node.holds_choice:
        raise SpecError(ChosenFromData(pattern=str(node)))
    return node


def picture(
    spec: Spec,
    n: int,
    *,
    cells: int = 64,
    params: Mapping[str, int] | None = None,
    head: int = 0,
    layer: int = 0,
    inputs: Mapping[str, Any] | None = None,
) -> Picture:
    """The pattern of one head at n tokens, in at most cells × cells cells. Raises SpecError.

    ``inputs``: an integer array [n] for each run-time input. Above n = 1024 cells that intervals prove full
    or empty are drawn so, and the others are sampled (the same sample each time): the work does not grow.
    """
    node = drawable(spec, n, params, head, layer)
    kinds = spec.module.inputs
    values = of_kind("token", kinds, check_inputs(kinds, inputs, n))
    for name, value in values.items():
        if value.ndim != 1:
            raise SpecError(InputShape(name=name, shape=tuple(value.shape), expected=f"[{n}]"))
    size = -(-n // cells)
    bounds = np.minimum(np.arange(0, n + size, size), n)
    positions, starts = _positions(bounds, exact=n <= EXACT)
    parts = branches(node, n)
    panels = []
    for number, branch in enumerate(parts):
        prefix = f"branch {number + 1}: " if len(parts) > 1 else ""
        for pool in sorted({TOKENS, *branch}, key=lambda p: (p.level, p.size)):
            density = np.zeros((len(starts), len(starts)))
            if pool in branch:
                density = _density(branch[pool], pool, n, positions, starts, values)
                if n > EXACT:
                    density = _proved(density, branch[pool], pool, n, bounds)
            if pool is TOKENS or density.any():
                panels.append(Panel(prefix + _title(pool, n), pool.level, density))
    return Picture(str(node), n, tuple(panels), exact=n <= EXACT)


def notes(spec: Spec, head: int, layer: int, params: Mapping[str, int] | None = None) -> list[str]:
    """Which head and layer a picture is of, where there are others that may see something else."""
    main = inline(set_params(spec.module, params)).main
    found = []
    if any(isinstance(p, Layers) for p in walk(main)):
        found.append(f"this is layer {layer}; layers differ, and --layer picks another")
        main = pick_layer(main, layer)
    if any(isinstance(p, Heads) or (isinstance(p, Where) and "h" in p.keep.names()) for p in walk(main)):
        found.append(f"this is head {head}; heads differ, and --head picks another")
    return found


def _title(pool: Pool, n: int) -> str:
    if pool is TOKENS:
        return f"tokens: {n}"
    return f"level {pool.level}: {pool.chunks(n)} summaries of {pool.size} tokens"


def _positions(bounds: Ints, exact: bool) -> tuple[Ints, Ints]:
    """The positions looked at, and where each cell's begin: all, or a stratified sample of each cell."""
    if exact:
        return np.arange(bounds[-1]), bounds[:-1]
    jitter = np.random.default_rng(0)
    most = max(2, min(SAMPLES, MOST_POSITIONS // len(bounds)))
    cells = []
    for low, high in itertools.pairwise(bounds):
        edges = np.linspace(low, high, min(most, high - low) + 1).astype(np.int64)
        cells.append(np.unique([low, *jitter.integers(edges[:-1], edges[1:])]))
    return np.concatenate(cells), np.cumsum([0, *map(len, cells[:-1])])


def _density(
    term: Term, pool: Pool, n: int, positions: Ints, starts: Ints, inputs: Mapping[str, Any]
) -> Floats:
    """The share of the pairs of positions that is kept, by cells."""
    _check_loops(term)
    slots, back = np.unique(positions // pool.stride, return_inverse=True)
    index = str(slot_index(pool).value)
    ends = [*starts, len(positions)]
    sizes = np.diff(ends)
    found = np.zeros((len(starts), len(starts)))
    at_once = max(1, AT_ONCE // (len(positions) * int(sizes.max())))  # rows of cells
    for row in range(0, len(starts), at_once):
        cells = slice(row, row + at_once)
        first = starts[row]
        q = positions[first : ends[min(row + at_once, len(starts))]]
        kept = evaluate(term.keep, {"q": q[:, None], index: slots[None, :], "n": n}, inputs)
        kept = np.broadcast_to(kept, (len(q), len(slots)))[:, back]
        by_column = np.add.reduceat(kept, starts, axis=1, dtype=np.int64)
        found[cells] = np.add.reduceat(by_column, starts[cells] - first, axis=0)
    return np.asarray(found / (sizes[:, None] * sizes[None, :]))


def _check_loops(term: Term) -> None:
    """Raise SpecError where a predicate takes too many steps at each pair."""
    loops: list[Any] = [e.value for e in term.keep.walk() if e.op in ("forall", "exists")]
    longest: int = max((trips for _, trips in loops), default=0)
    if longest > MOST_STEPS:
        reason = (
            f"whether a chunk of {longest} tokens is kept needs every one of them: too many for a picture"
        )
        raise SpecError(BadCall(argument="n", reason=reason, advice="draw it at a smaller n"))


def _proved(density: Floats, term: Term, pool: Pool, n: int, bounds: Ints) -> Floats:
    """The sampled density, with what strided intervals prove of whole cells; where a pair may be kept though
    none was met, a cell is faint."""
    first, last = bounds[:-1], bounds[1:] - 1
    slots = Interval(first // pool.stride, last // pool.stride)
    env = {
        "q": Interval(first[:, None], last[:, None]),
        str(slot_index(pool).value): slots,
        "n": Interval(n, n, 0),
    }
    truth = classify(term.keep, env)
    if not term.keep.reads_data():
        density = np.maximum(density, FAINT)
    return np.where(truth.never, 0.0, np.where(truth.always, 1.0, density))


# -- the terminal ----------------------------------------------------------------------------------------


def fitting_cells(spec: Spec, width: int) -> int:
    """Cells on a side for a terminal of so many columns: two panels side by side where there are several."""
    bodies = [spec.module.main, *(f.body for f in spec.module.functions.values())]
    several = any(has_summaries(p) for p in bodies)
    columns = (width - GAP) // 2 if several else min(width, 96)
    return max(8, columns // 8 * 8)


SHADES = " ·░▒▓█"
_HUES = ((255, 255, 255), (95, 175, 255), (255, 175, 95), (135, 215, 135), (255, 135, 215), (215, 215, 95))
GAP = 3


def terminal(shown: Picture, width: int = 80, color: bool = False) -> str:
    """The panels as text: side by side where they fit, otherwise below each other."""
    drawn = [[p.title, *_lines(p, color)] for p in shown.panels]
    widths = [max(_columns(p), len(p.title)) for p in shown.panels]
    rows: list[list[int]] = []
    room = 0
    for i, w in enumerate(widths):
        if not rows or room + GAP + w > width:
            rows.append([])
            room = -GAP
        rows[-1].append(i)
        room += GAP + w
    blocks = []
    for row in rows:
        height = max(len(drawn[i]) for i in row)
        lines = []
        for y in range(height):
            parts = [drawn[i][y] if y < len(drawn[i]) else "" for i in row]
            used = [len(shown.panels[i].title) if y == 0 else _columns(shown.panels[i]) for i in row]
            blank = [" " * (widths[i] - u) for i, u in zip(row, used, strict=True)]
            lines.append((" " * GAP).join(p + b for p, b in zip(parts, blank, strict=True)).rstrip())
        blocks.append("\n".join(lines))
    note = [] if shown.exact else ["(sampled: a cell at its faintest may hold few pairs, or none)"]
    return "\n\n".join([*blocks, *note])


def _wide(panel: Panel) -> bool:
    """Few cells: each takes two characters of a line, and so is square."""
    return len(panel.density) <= 20


def _columns(panel: Panel) -> int:
    return len(panel.density) * (2 if _wide(panel) else 1)


def _lines(panel: Panel, color: bool) -> list[str]:
    density = panel.density
    if _wide(panel):
        return ["".join(2 * _shade(x, panel, color) for x in row) for row in density]
    if len(density) % 2:
        density = np.vstack([density, np.zeros((1, density.shape[1]))])
    upper, lower = density[0::2], density[1::2]
    if color or np.isin(density, (0, 1)).all():
        pairs = [zip(above, below, strict=True) for above, below in zip(upper, lower, strict=True)]
        return ["".join(_half(a, b, panel, color) for a, b in row) for row in pairs]
    return ["".join(_shade(x, panel, color) for x in row) for row in (upper + lower) / 2]


def _shade(x: float, panel: Panel, color: bool) -> str:
    if color:
        return _paint("█", x, panel) if x > 0 else " "
    return SHADES[min(5, 1 + int(x * 4.999))] if x > 0 else " "


def _half(above: float, below: float, panel: Panel, color: bool) -> str:
    if not color or above == 0 or below == 0 or above == below:
        character = " ▀▄█"[(above > 0) + 2 * (below > 0)]
        return _paint(character, max(above, below), panel) if color and character != " " else character
    return f"\x1b[38;2;{_rgb(above, panel)};48;2;{_rgb(below, panel)}m▀\x1b[0m"


def _paint(character: str, x: float, panel: Panel) -> str:
    return f"\x1b[38;2;{_rgb(x, panel)}m{character}\x1b[0m"


def _rgb(x: float, panel: Panel) -> str:
    hue = _HUES[panel.level % len(_HUES)]
    return ";".join(str(round(c * _visible(x))) for c in hue)


def _visible(x: float) -> float:
    """Brightness of a density: what is kept at all is seen."""
    return 0.0 if x <= 0 else 0.25 + 0.75 * float(x) ** 0.5


# -- files -----------------------------------------------------------------------------------------------


FORMATS = (".png", ".svg")


class PlotUnavailable(RuntimeError):
    """matplotlib is not installed."""


def save(shown: Picture, path: Path, title: str | None = None) -> None:
    """Write the picture as PNG or SVG, by the name's ending. Raises PlotUnavailable, ValueError, OSError."""
    try:
        import matplotlib
    except ImportError:
        raise PlotUnavailable("pictures need matplotlib: pip install 'patterndsl[plot]'") from None
    matplotlib.use("agg")
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"a picture is .png or .svg, not {path.name!r}")
    columns = min(len(shown.panels), 4)
    rows = -(-len(shown.panels) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.5 * rows + 0.3), layout="constrained")
    figure.suptitle(title or shown.title, fontsize=10, wrap=True)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    colors = ("#1b1b1b", "#2a6fbb", "#c8641a", "#2f8f4e", "#a03c96", "#8a8a1a")
    for axis, panel in zip(axes, shown.panels, strict=False):
        shades = LinearSegmentedColormap.from_list("density", ["white", colors[panel.level % len(colors)]])
        image = np.vectorize(_visible)(panel.density)
        extent = (0, shown.n, shown.n, 0)
        axis.imshow(image, cmap=shades, vmin=0, vmax=1, interpolation="nearest", extent=extent)
        axis.set_title(panel.title, fontsize=8)
        axis.set_xlabel("key", fontsize=8)
        axis.set_ylabel("query", fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(shown.panels) :]:
        axis.set_axis_off()
    metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
    figure.savefig(path, dpi=110, metadata=metadata)
