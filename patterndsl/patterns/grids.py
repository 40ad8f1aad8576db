"""`axial`, `neighborhood`, `tiles`, `windows`: patterns on n-d grids in row-major order."""

from __future__ import annotations

import math
from typing import Annotated

from patterndsl.ir.expr import Expr, all_of, any_of, clip, maximum, minimum
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import Count, Counts, Grid, Kind, coordinates, ints, pattern, per_axis
from patterndsl.plan import orders

ONE = (Expr("const", (), 1),)
ZERO = (Expr("const", (), 0),)


def on_grid(q: Expr, shape: tuple[int, ...]) -> Expr:
    """The query lies on the grid: others (n_q > n) keep nothing."""
    return all_of(q >= 0, q < math.prod(shape))


@pattern
class Axial(Pattern):
    """Keys with the query's coordinates on all axes but `axis`."""

    name = "axial"
    growth = "n·shape[axis]"
    source = "Ho et al. 2019 (Axial Transformers), arXiv:1912.12180"
    examples = ("axial(shape=[8, 8], axis=0)", "axial(shape=[4, 4, 4], axis=2)")

    shape: Grid
    axis: Count

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import axis_exists, grid_covers

        grid_covers(self, self.shape, n)
        axis_exists(self, self.axis, self.shape)

    def layouts(self, n: int) -> tuple[orders.Order, ...]:
        shape, axis = ints(self.shape), int(self.axis)
        apart = math.prod(shape[axis + 1 :])
        return (orders.Residues(apart, within=apart * shape[axis] if axis else None),) if apart > 1 else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        shape, axis = ints(self.shape), int(self.axis)
        pairs = zip(coordinates(q, shape), coordinates(k, shape), strict=True)
        return on_grid(q, shape) & all_of(*(x.eq(y) for i, (x, y) in enumerate(pairs) if i != axis))

    def pairs(self, n: Expr) -> Expr:
        axis = self.axis.number
        return n * (self.shape[axis] if axis is not None and axis < len(self.shape) else n)


@pattern
class Neighborhood(Pattern):
    """NATTEN: on each axis the `window` nearest keys (of the query's residue, when dilated). The window moves
    inwards at the edges and keeps its size; even ones lean left. `stride` queries share a window; on a causal
    axis the window ends at the query (no further than its stride group) and is cut at the start. `window`,
    `dilation`, `stride` and `causal` are one value for all axes or a list of one per axis."""

    name = "neighborhood"
    growth = "n·window^d"
    source = "Hassani et al. 2022 (NATTEN), arXiv:2204.07143; Hassani et al. 2025 (strides), arXiv:2504.16922"
    examples = (
        "neighborhood(shape=[8, 8], window=3)",
        "neighborhood(shape=[8, 8], window=[4, 2], dilation=[2, 1])",
        "neighborhood(shape=[8, 8], window=4, stride=2)",
        "neighborhood(shape=[8, 8], window=3, causal=[1, 0])",
    )

    shape: Grid
    window: Grid
    dilation: Grid = ONE
    stride: Grid = ONE
    causal: Annotated[tuple[Expr, ...] | bool, Kind("shape", 0)] = ZERO

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import grid_covers, same_axes, window_fits

        grid_covers(self, self.shape, n)
        same_axes(self, self.shape, "window", "dilation", "stride", "causal")
        window_fits(self)

    def layouts(self, n: int) -> tuple[orders.Order, ...]:
        shape = ints(self.shape)
        if sum(extent > 1 for extent in shape) < 2 and self.dilation == ONE:
            return ()
        return (orders.Grid(shape, per_axis(self.window, len(shape)), per_axis(self.dilation, len(shape))),)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        shape = ints(self.shape)
        axes = len(shape)
        settings = zip(
            shape,
            per_axis(self.window, axes),
            per_axis(self.dilation, axes),
            per_axis(self.stride, axes),
            per_axis(self._causal, axes),
            coordinates(q, shape),
            coordinates(k, shape),
            strict=True,
        )
        return on_grid(q, shape) & all_of(*(_near(*s) for s in settings))

    @property
    def _causal(self) -> tuple[Expr, ...]:
        return (Expr("const", (), int(self.causal)),) if isinstance(self.causal, bool) else self.causal

    def pairs(self, n: Expr) -> Expr:
        total = n
        for w in self.window * len(self.shape) if len(self.window) == 1 else self.window:
            total = total * w
        return total


def _near(extent: int, window: int, dilation: int, stride: int, causal: int, x: Expr, y: Expr) -> Expr:
    """The rule on one axis: x the query's coordinate, y the key's."""
    residue, i, j = x % dilation, x // dilation, y // dilation
    length = (extent - 1 - residue) // dilation + 1  # of the query's residue class
    if causal:
        leader = minimum(i // stride * stride + stride - 1, length - 1)
        inside = all_of(maximum(leader - window + 1, 0) <= j, j <= i)
    else:
        leader = minimum(i // stride * stride + stride // 2, length - 1)
        start = clip(leader - window // 2, 0, length - window)
        inside = all_of(start <= j, j < start + window)
    return all_of(residue.eq(y % dilation), inside)


@pattern
class Tiles(Pattern):
    """Sliding tile attention: queries see whole tiles, a window of `window` tiles on each axis around their
    own. The window moves inwards at the edges and keeps its size; even ones lean left."""

    name = "tiles"
    growth = "n·(tile·window)^d"
    source = "Zhang et al. 2025 (Sliding Tile Attention), arXiv:2502.04507"
    examples = (
        "tiles(shape=[8, 8], tile=2, window=3)",
        "tiles(shape=[4, 8, 8], tile=[2, 4, 4], window=[1, 2, 1])",
    )

    shape: Grid
    tile: Grid
    window: Grid

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import grid_covers, same_axes, tile_window_fits

        grid_covers(self, self.shape, n)
        same_axes(self, self.shape, "tile", "window")
        tile_window_fits(self)

    def layouts(self, n: int) -> tuple[orders.Order, ...]:
        shape = ints(self.shape)
        return (orders.Windows(shape, per_axis(self.tile, len(shape)), (0,) * len(shape)),)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        shape = ints(self.shape)
        axes = len(shape)
        tests = [on_grid(q, shape)]
        for extent, tile, window, x, y in zip(
            shape,
            per_axis(self.tile, axes),
            per_axis(self.window, axes),
            coordinates(q, shape),
            coordinates(k, shape),
            strict=True,
        ):
            count, right = -(-extent // tile), window // 2 + window % 2 - 1
            centre = clip(x // tile, window // 2, count - 1 - right)
            tests += [centre - window // 2 <= y // tile, y // tile <= centre + right]
        return all_of(*tests)

    def pairs(self, n: Expr) -> Expr:
        axes, total = len(self.shape), n
        for values in (self.tile, self.window):
            for x in values * axes if len(values) == 1 else values:
                total = total * x
        return total


@pattern
class Windows(Pattern):
    """Swin: the grid, rolled back by `shift`, is cut into windows of `size`; a query sees the keys of its
    window that were also neighbours before the roll. Where the shortest axis is no longer than a window,
    windows of its length, not shifted, as published."""

    name = "windows"
    growth = "n·size^d"
    source = "Liu et al. 2021 (Swin Transformer), arXiv:2103.14030"
    examples = ("windows(shape=[8, 8], size=4)", "windows(shape=[8, 8], size=4, shift=2)")

    shape: Grid
    size: Grid
    shift: Counts = ZERO

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import grid_covers, same_axes

        grid_covers(self, self.shape, n)
        same_axes(self, self.shape, "size", "shift")

    def layouts(self, n: int) -> tuple[orders.Order, ...]:
        shape = ints(self.shape)
        axes = len(shape)
        size, shift = per_axis(self.size, axes), per_axis(self.shift, axes)
        if any(extent <= side for extent, side in zip(shape, size, strict=True)):
            size, shift = (min(shape),) * axes, (0,) * axes
        return (orders.Windows(shape, size, shift),)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        shape = ints(self.shape)
        axes = len(shape)
        sizes, shifts = per_axis(self.size, axes), per_axis(self.shift, axes)
        one_window = any(extent <= size for extent, size in zip(shape, sizes, strict=True))
        tests = [on_grid(q, shape)]
        for extent, size, shift, x, y in zip(
            shape, sizes, shifts, coordinates(q, shape), coordinates(k, shape), strict=True
        ):
            if one_window:
                size, shift = min(shape), 0
            x, y = (x - shift) % extent, (y - shift) % extent
            tests.append((x // size).eq(y // size))
            if shift % extent:
                edge = extent - shift % extent
                tests.append(any_of(all_of(x < edge, y < edge), all_of(x >= edge, y >= edge)))
        return all_of(*tests)

    def pairs(self, n: Expr) -> Expr:
        total = n
        for s in self.size * len(self.shape) if len(self.size) == 1 else self.size:
            total = total * s
        return total
