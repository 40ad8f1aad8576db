"""Orders of positions that a pattern may wish for: which tokens should lie side by side.

An order is a mixed-radix permutation: a position is read as digits, and its place is the same digits, read
in another sequence. Orders know neither the length nor the tiles; `plan.digits` makes places of them. Their
text, as in ``residues(64)``, reads back (`order_of`), so that a choice can be kept in a file.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Scheme:
    """The digits of an order, for tiles of a known size.

    ``strides`` fall and end in 1: the coordinates of a position are what a greedy division by them gives,
    ``c0 = p // S0``, ``c1 = p % S0 // S1``, …, so that the position is ``Σ c · S``. ``tiles``: for each
    coordinate None, or (size, shift), by which it is cut into two digits, the number of its tile
    ``(c + shift) // size`` and the place in the tile. ``order``: all digits, major first, as (coordinate,
    which): 0 the only digit or the number of the tile, 1 the place in it. The last ``inner`` of them make a
    class, within which the pattern is dense or a band: tiles of places do not straddle classes.
    """

    strides: tuple[int, ...]
    tiles: tuple[tuple[int, int] | None, ...]
    order: tuple[tuple[int, int], ...]
    inner: int


@dataclasses.dataclass(frozen=True)
class Residues:
    """Within each ``within`` positions (None: all), runs of ``unit`` positions that are ``stride`` apart lie
    side by side. Runs begin at multiples of ``unit`` less ``shift``, counted from each multiple of
    ``stride``."""

    stride: int
    within: int | None = None
    unit: int = 1
    shift: int = 0

    def __str__(self) -> str:
        return _text("residues", self)

    def scheme(self, block: int) -> Scheme:
        """The digits: (segment,) run, which of the stretches of ``stride``, position in the run."""
        whole = (self.stride, 1)
        cut = (self.unit, self.shift) if self.unit > 1 else None
        outer, last = ((), 1) if self.within is None else (((0, 0),), 2)
        strides = whole if self.within is None else (self.within, *whole)
        tail = ((last - 1, 0),) if cut is None else ((last - 1, 0), (last, 1))
        return Scheme(strides, (*(None,) * last, cut), (*outer, (last, 0), *tail), len(tail))


@dataclasses.dataclass(frozen=True)
class Columns(Residues):
    """`Residues` of the tokens alone: every query sees the same ones, or nearly."""

    def __str__(self) -> str:
        return _text("columns", self)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tiles of a grid in row-major order, of a shape that fits the size of tiles. ``window``: how many
    neighbours a query sees on each axis; ``dilation``: how far they are apart."""

    shape: tuple[int, ...]
    window: tuple[int, ...]
    dilation: tuple[int, ...]

    def __str__(self) -> str:
        plain = self.dilation == (1,) * len(self.shape)
        return f"grid({self.shape}, {self.window}{'' if plain else f', {self.dilation}'})"

    def scheme(self, block: int) -> Scheme:
        """The digits: residues of the dilations, tiles, positions in a tile; each axis by axis."""
        strides: list[int] = []
        lines, residues = [], []
        for axis, d in enumerate(self.dilation):
            stride = math.prod(self.shape[axis + 1 :])
            lines.append(len(strides))
            strides.append(stride * d)
            if d > 1:
                residues.append(len(strides))
                strides.append(stride)
        extents = [-(-e // d) for e, d in zip(self.shape, self.dilation, strict=True)]
        sizes = best_tile(extents, self.window, block)
        tiles: list[tuple[int, int] | None] = [None] * len(strides)
        for line, size in zip(lines, sizes, strict=True):
            tiles[line] = (size, 0)
        order = [*((r, 0) for r in residues), *((x, 0) for x in lines), *((x, 1) for x in lines)]
        return Scheme(tuple(strides), tuple(tiles), tuple(order), len(lines))


@dataclasses.dataclass(frozen=True)
class Windows:
    """Given tiles of a grid in row-major order, ``size`` on each axis, the first cut at ``shift``."""

    shape: tuple[int, ...]
    size: tuple[int, ...]
    shift: tuple[int, ...]

    def __str__(self) -> str:
        plain = self.shift == (0,) * len(self.shape)
        return f"windows({self.shape}, {self.size}{'' if plain else f', {self.shift}'})"

    def scheme(self, block: int) -> Scheme:
        """The digits: tiles, positions in a tile; each axis by axis."""
        axes = range(len(self.shape))
        strides = tuple(math.prod(self.shape[axis + 1 :]) for axis in axes)
        tiles = tuple((size, -cut % size) for size, cut in zip(self.size, self.shift, strict=True))
        return Scheme(strides, tiles, (*((x, 0) for x in axes), *((x, 1) for x in axes)), len(self.shape))


@dataclasses.dataclass(frozen=True)
class Gathered:
    """As they come; but of the tokens, each tile of queries lists those that it sees one by one."""

    def __str__(self) -> str:
        return "gathered"


@dataclasses.dataclass(frozen=True)
class Grouped:
    """At run time: each group of tokens meets the queries that named it (`plan.grouping`)."""

    def __str__(self) -> str:
        return "grouped"


@dataclasses.dataclass(frozen=True)
class Identity:
    """As they come."""

    def __str__(self) -> str:
        return "identity"


Order: TypeAlias = Residues | Grid | Windows | Gathered | Grouped | Identity


def best_tile(extents: list[int], window: tuple[int, ...], block: int) -> tuple[int, ...]:
    """The sides, powers of two, of a tile of at most ``block`` positions (as many, where the extents allow)
    that has the fewest keys in sight of a query, counting what lies beyond the grid."""
    digits = block.bit_length() - 1
    most = [max(e - 1, 0).bit_length() for e in extents]
    digits = min(digits, sum(most))

    def cost(sides: tuple[int, ...]) -> float:
        seen = 1.0
        for e, w, side in zip(extents, window, sides, strict=True):
            size = 1 << side
            seen *= -(-e // size) * size / e * (size + min(w, e))
        return seen

    ways = [s for s in itertools.product(*(range(m + 1) for m in most)) if sum(s) == digits]
    return tuple(1 << side for side in min(ways, key=lambda s: (cost(s), s)))


def _text(name: str, order: Residues) -> str:
    options = [(f.name, getattr(order, f.name), f.default) for f in dataclasses.fields(order)[1:]]
    given = [f"{option}={value}" for option, value, default in options if value != default]
    return f"{name}({', '.join([str(order.stride), *given])})"


KINDS = {"residues": Residues, "columns": Columns, "grid": Grid, "windows": Windows}


def order_of(text: str) -> Order:
    """The order of that text. Raises ValueError where there is none."""
    if text == "identity":
        return Identity()
    if text == "gathered":
        return Gathered()
    if text == "grouped":
        return Grouped()
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        arguments = [ast.literal_eval(a) for a in call.args]
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        kind = KINDS[call.func.id]
        if kind in (Grid, Windows) and len(arguments) == 2:
            arguments.append((1 if kind is Grid else 0,) * len(arguments[0]))
        made: Order = kind(*arguments, **options)
    except (SyntaxError, ValueError, TypeError, KeyError, AssertionError):
        raise ValueError(f"no such order: {text!r}") from None
    return made
