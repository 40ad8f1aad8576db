"""Patterns on n-d grids in row-major order.

Each raises ValueError where the shape's product is not n, or where a query is not on the grid.
"""

import itertools

import numpy as np

MASKS = {}


def grid(function):
    """Registers a function of (shape, **args) that returns the visible coordinates of each cell."""

    def mask(q_positions, n, shape, **args):
        if int(np.prod(shape)) != n:
            raise ValueError(f"a grid of shape {shape} has no {n} tokens")
        if len(q_positions) and min(q_positions) < 0:
            raise ValueError("a query is not on the grid")
        cells = list(itertools.product(*(range(size) for size in shape)))
        sees = function(tuple(shape), **args)
        return np.array(
            [[bool(sees(cells[q], key)) for key in cells] for q in q_positions], dtype=bool
        ).reshape(len(q_positions), n)

    MASKS[function.__name__] = mask
    return function


def per_axis(value, dims):
    return (value,) * dims if isinstance(value, (int, bool)) else tuple(value)


@grid
def axial(shape, axis):
    axis %= len(shape)
    return lambda q, k: all(q[d] == k[d] for d in range(len(shape)) if d != axis)


def neighborhood_axis(length, window, dilation, stride, causal):
    """For each coordinate of an axis, the set of coordinates it sees (NATTEN's reference mask)."""
    if window * dilation > length or stride > window:
        raise ValueError("window * dilation must fit the axis, and stride the window")
    sees = []
    for coordinate in range(length):
        residue = coordinate % dilation
        group = [x for x in range(length) if x % dilation == residue]
        place = group.index(coordinate)
        if causal:
            leader = min(place // stride * stride + stride - 1, len(group) - 1)
            visible = range(max(leader - window + 1, 0), place + 1)
        else:
            leader = min(place // stride * stride + stride // 2, len(group) - 1)
            start = min(max(leader - window // 2, 0), len(group) - window)
            visible = range(start, start + window)
        sees.append({group[x] for x in visible})
    return sees


@grid
def neighborhood(shape, window, dilation=1, stride=1, causal=False):
    dims = len(shape)
    arguments = zip(
        shape,
        per_axis(window, dims),
        per_axis(dilation, dims),
        per_axis(stride, dims),
        per_axis(causal, dims),
        strict=True,
    )
    axes = [neighborhood_axis(*axis) for axis in arguments]
    return lambda q, k: all(k[d] in axes[d][q[d]] for d in range(dims))


def tile_axis(length, tile, window):
    """For each tile of an axis, the list of tiles it sees: a window of tiles that stays inside."""
    count = -(-length // tile)
    if window > count:
        raise ValueError("the window must fit the axis")
    right = window // 2 + window % 2 - 1
    sees = []
    for place in range(count):
        centre = min(max(place, window // 2), count - 1 - right)
        sees.append(list(range(centre - window // 2, centre + right + 1)))
        assert len(sees[-1]) == window and sees[-1][0] >= 0 and sees[-1][-1] < count
    return sees


@grid
def tiles(shape, tile, window):
    dims = len(shape)
    tile, window = per_axis(tile, dims), per_axis(window, dims)
    axes = [tile_axis(*axis) for axis in zip(shape, tile, window, strict=True)]
    return lambda q, k: all(k[d] // tile[d] in axes[d][q[d] // tile[d]] for d in range(dims))


@grid
def windows(shape, size, shift=0):
    """Swin: roll by -shift, cut into windows; a shifted window also keeps the rolled-in strip apart.

    A grid no longer than a window on some axis has windows of its shortest length, not shifted.
    """
    dims = len(shape)
    size, shift = per_axis(size, dims), per_axis(shift, dims)
    if any(length <= width for length, width in zip(shape, size, strict=True)):
        size, shift = (min(shape),) * dims, (0,) * dims
    if any(length % width for length, width in zip(shape, size, strict=True)):
        raise ValueError("windows must divide the grid")

    def labels(coordinates):
        label = []
        for x, length, width, by in zip(coordinates, shape, size, shift, strict=True):
            rolled = (x - by) % length
            region = 0
            if by:
                region = 0 if rolled < length - width else 1 if rolled < length - by else 2
            label.append((rolled // width, region))
        return label

    return lambda q, k: labels(q) == labels(k)
