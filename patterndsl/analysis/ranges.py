"""Bounds on an expression over many boxes of (query, slot) pairs at once.

A box is a rectangle of queries and slots. For each subexpression and each box this gives the smallest and the
largest value that it may take there; truth values are 0 and 1, so that equal bounds mean *always* or *never*.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from patterndsl.ir.expr import Expr, all_of, any_of, build, var
from patterndsl.ir.table import Table

Int64: TypeAlias = npt.NDArray[np.int64]
Range: TypeAlias = tuple[Int64, Int64]

LARGEST = 2**62
PROBED = 2  # nested quantifiers that are probed; each probe copies the body


QUANTIFIERS = ("forall", "exists")


class OutOfRange(ArithmeticError):
    """A value does not fit 64 bits."""


def with_probes(e: Expr) -> Expr:
    """The same truth, with quantified bodies also tested at both ends of their range (and next to the
    first), and every quantifier's variable under a name of its own.

    Bounds over the whole range of a quantifier say little of a body that alternates; at single values
    they are sharp.
    """
    counter = itertools.count()

    def go(x: Expr, depth: int) -> Expr:
        if all(a.op not in QUANTIFIERS for a in x.walk()):
            return x
        return x.rebuild(lambda a: probed(a, depth) if a.op in QUANTIFIERS else None)

    def probed(x: Expr, depth: int) -> Expr:
        first, last, body = x.args
        name, trips = quantified(x)
        unique = f"{name}#{next(counter)}"
        whole = build(x.op, first, last, go(body.subs({name: var(unique)}), depth + 1), value=(unique, trips))
        if depth >= PROBED:
            return whole
        places = [(first, first <= last), (first + 1, first < last), (last, first <= last)]
        tests = [(exists, go(body.subs({name: place}), depth + 1)) for place, exists in places]
        if x.op == "forall":
            return all_of(*(~exists | held for exists, held in tests), whole)
        return any_of(*(exists & held for exists, held in tests), whole)

    return go(e, 0)


def quantified(x: Expr) -> tuple[str, int]:
    """The variable of a quantifier, and how many values it takes at most."""
    value: Any = x.value
    return str(value[0]), int(value[1])


def bounds(nodes: list[Expr], env: Mapping[str, Range]) -> dict[Expr, Range]:
    """For each of ``nodes`` (``e.walk()``) its least and greatest value in each box.

    ``env``: least and greatest value of the free variables, arrays of one entry a box. Raises `OutOfRange`.
    """
    found: dict[Expr, Range] = {}
    ends = {quantified(x)[0]: x.args[:2] for x in nodes if x.op in QUANTIFIERS}
    for node in nodes:
        if node.op in QUANTIFIERS:
            found[node] = _quantified(node, found)
        elif node.op != "var":
            found[node] = _bound(node, [found[a] for a in node.args])
        elif str(node.value) in ends:
            first, last = (found[x] for x in ends[str(node.value)])
            found[node] = first[0], np.maximum(first[0], last[1])
        else:
            found[node] = env[str(node.value)]
    return found


def _quantified(node: Expr, found: dict[Expr, Range]) -> Range:
    first, last, body = (found[a] for a in node.args)
    surely, maybe = first[1] <= last[0], first[0] <= last[1]
    low, high = body
    if node.op == "forall":
        return np.where(maybe, low, 1), np.where(surely, high, 1)
    return np.where(surely, low, 0), np.where(maybe, high, 0)


def _bound(node: Expr, a: list[Range]) -> Range:
    match node.op:
        case "const" | "bool":
            value = np.int64(node.value)  # type: ignore[arg-type]
            return value, value  # type: ignore[return-value]
        case "lookup":
            assert isinstance(node.value, Table)
            return _lookup(node.value, *a)
        case "input":
            raise TypeError("bounds of run-time inputs are not known here")
    low, high = _BOUNDS[node.op](*a)
    return low, high


def _checked(x: Any) -> Any:
    if np.any(np.abs(x) > LARGEST):
        raise OutOfRange("a value of the predicate does not fit 64 bits")
    return x


def _mul(a: Range, b: Range) -> Range:
    products = [x * y for x in a for y in b]
    for x in a:
        for y in b:
            _checked(np.asarray(x, np.float64) * y)
    products = list(np.broadcast_arrays(*products))
    return np.minimum.reduce(products), np.maximum.reduce(products)


def _floordiv(a: Range, b: Range) -> Range:
    clear = (b[0] > 0) | (b[1] < 0)
    ends = [np.where(y == 0, 1, y) for y in b]
    corners = np.broadcast_arrays(*(x // y for x in a for y in ends))
    largest = np.maximum(np.abs(a[0]), np.abs(a[1]))
    return (
        np.where(clear, np.minimum.reduce(corners), -largest),
        np.where(clear, np.maximum.reduce(corners), largest),
    )


def _mod(a: Range, b: Range) -> Range:
    least, most = b
    positive = least > 0
    p = np.where(positive & (least == most), least, 1)
    whole = positive & (least == most) & (a[0] // p == a[1] // p)
    small = positive & (a[0] >= 0) & (a[1] < least)
    size = np.maximum(np.abs(least), np.abs(most))
    low = np.where(positive, 0, np.where(most < 0, 1 - size, -size))
    high = np.where(positive, most - 1, np.where(most < 0, 0, size))
    low = np.where(whole, a[0] % p, np.where(small, a[0], low))
    high = np.where(whole, a[1] % p, np.where(small, a[1], high))
    return low, high


def _abs(a: Range) -> Range:
    low, high = a
    return np.maximum(np.maximum(low, -high), 0), np.maximum(np.abs(low), np.abs(high))


def bit_length(x: Any) -> Int64:
    """Binary digits of non-negative numbers below 2^62."""
    x = np.asarray(x, np.int64)
    length = np.frexp(x.astype(np.float64))[1].astype(np.int64)
    length -= x >> np.maximum(length - 1, 0) == 0
    return np.where(x > 0, length, 0)


def varying_bits(*a: Range) -> Int64:
    """How many of the lowest binary digits may differ within a box; the digits above are the same all
    over it."""
    return bit_length(np.bitwise_or.reduce(np.broadcast_arrays(*(low ^ high for low, high in a))))


def _xor(a: Range, b: Range) -> Range:
    negative = (a[0] < 0) | (b[0] < 0)
    m = varying_bits(a, b)
    prefix = ((a[0] >> m) ^ (b[0] >> m)) << m
    most = np.maximum.reduce(np.broadcast_arrays(*(np.abs(x) for x in (*a, *b))))
    wide = np.int64(1) << (bit_length(most) + 1)
    return np.where(negative, -wide, prefix), np.where(negative, wide, prefix + (np.int64(1) << m) - 1)


def _popcount(a: Range) -> Range:
    m = varying_bits(a)
    ones = np.bitwise_count(np.maximum(a[0], 0) >> m).astype(np.int64)
    return np.where(a[0] < 0, 0, ones), np.where(a[0] < 0, 64, ones + m)


def _compare(a: Range, b: Range, strict: bool) -> Range:
    if strict:
        return (a[1] < b[0]).astype(np.int64), (a[0] < b[1]).astype(np.int64)
    return (a[1] <= b[0]).astype(np.int64), (a[0] <= b[1]).astype(np.int64)


def _eq(a: Range, b: Range) -> Range:
    same = (a[0] == a[1]) & (b[0] == b[1]) & (a[0] == b[0])
    apart = (a[1] < b[0]) | (b[1] < a[0])
    return same.astype(np.int64), (~apart).astype(np.int64)


def _not(a: Range) -> Range:
    return 1 - a[1], 1 - a[0]


def _if(c: Range, a: Range, b: Range) -> Range:
    return (
        np.where(c[0] > 0, a[0], np.where(c[1] == 0, b[0], np.minimum(a[0], b[0]))),
        np.where(c[0] > 0, a[1], np.where(c[1] == 0, b[1], np.maximum(a[1], b[1]))),
    )


def _each(join: Any) -> Any:
    def bound(*a: Range) -> Range:
        low, high = a[0]
        for x in a[1:]:
            low, high = join(low, x[0]), join(high, x[1])
        return low, high

    return bound


def _lookup(table: Table, row: Range, column: Range) -> Range:
    """Kept pairs of the table in a box of rows and columns: searched among those of two coarse rows that
    cover it."""
    rows = table.entries.shape[0]
    row, column = np.broadcast_arrays(*row), np.broadcast_arrays(*column)  # type: ignore[assignment]
    r0, r1 = np.maximum(row[0], 0), np.minimum(row[1], rows - 1)
    c0, c1 = np.maximum(column[0], 0), np.minimum(column[1], table.columns - 1)
    r0, r1, c0, c1 = np.broadcast_arrays(r0, r1, c0, c1)
    exists = (r0 <= r1) & (c0 <= c1)
    shape, inside = exists.shape, exists.ravel()
    r0, r1, c0, c1 = (x.ravel() for x in (r0, r1, c0, c1))
    any_kept, all_kept = np.zeros(inside.shape, bool), np.zeros(inside.shape, bool)
    level = np.minimum(bit_length(r1 - r0), len(table.pyramid) - 1)
    for j in np.unique(level[inside]):
        keys, stride = table.pyramid[j]
        at = inside & (level == j)
        for coarse in (r0[at] >> j, r1[at] >> j):
            first = np.searchsorted(keys, coarse * stride + c0[at], "left")
            last = np.searchsorted(keys, coarse * stride + c1[at], "right")
            any_kept[at] |= last > first
            if j == 0:
                all_kept[at] = last - first == c1[at] - c0[at] + 1
    whole = (
        (row[0] == row[1]) & (row[0] >= 0) & (row[1] < rows) & (column[0] >= 0) & (column[1] < table.columns)
    )
    return (all_kept.reshape(shape) & whole).astype(np.int64), any_kept.reshape(shape).astype(np.int64)


_BOUNDS: dict[str, Any] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _mul,
    "floordiv": _floordiv,
    "mod": _mod,
    "neg": lambda a: (-a[1], -a[0]),
    "abs": _abs,
    "min": _each(np.minimum),
    "max": _each(np.maximum),
    "xor": _xor,
    "popcount": _popcount,
    "lt": lambda a, b: _compare(a, b, True),
    "le": lambda a, b: _compare(a, b, False),
    "eq": _eq,
    "ne": lambda a, b: _not(_eq(a, b)),
    "and": _each(np.minimum),
    "or": _each(np.maximum),
    "not": _not,
    "if": _if,
}
