"""Strided intervals: what an expression can be over a whole box of positions, for many boxes at once.

A number's abstract value is an `Interval`, a predicate's a `Truth`. Both are sound: whatever the expression
takes over the box lies within, and *always* and *never* are proofs. Where neither is proved, the predicate
may be mixed.

One evaluator serves three kinds of numbers: NumPy arrays (tables), JAX arrays (per-tile bounds of run-time
inputs) and Python's exact integers for a single box (`EXACT`, for checks of overflow).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from patterndsl.ir.expr import Expr
from patterndsl.ir.linear import Linear, is_sum, program
from patterndsl.ir.table import Table


class Interval(NamedTuple):
    """Numbers from ``lo`` to ``hi``, both included, all ≡ lo (mod ``step``); ``step`` 0 is the constant
    ``lo``.

    Each of the three is an array over boxes, or one number for all. ``hi`` ≡ lo (mod step), too.
    """

    lo: Any
    hi: Any
    step: Any = 1


class Truth(NamedTuple):
    """Over each box: proved to hold everywhere, proved to hold nowhere."""

    always: Any
    never: Any


class EXACT:
    """The array namespace's part that is used here, over Python's integers and truth values."""

    minimum = staticmethod(min)
    maximum = staticmethod(max)
    gcd = staticmethod(math.gcd)
    abs = staticmethod(abs)

    @staticmethod
    def where(condition: bool, yes: Any, no: Any) -> Any:
        return yes if condition else no

    @staticmethod
    def bitwise_count(x: int) -> int:
        return abs(x).bit_count()


ANY = Interval(-(2**31), 2**31 - 1, 1)
"""A number of which nothing is known (an int32)."""
UNDECIDED = Truth(False, False)

Env = Mapping[str, Interval]
Reader = Callable[[Expr, Interval], Interval]
"""The bounds of a run-time input, or a fact: from its expression and the interval of the (first) position
read."""


def classify(e: Expr, env: Env, read: Reader | None = None, xp: Any = np) -> Truth:
    """Whether the predicate ``e`` holds over all, or nowhere, of each box.

    ``env``: for each variable its interval. Arrays broadcast: queries [T, 1] against keys [1, S] are T·S
    boxes. ``read``: bounds of run-time inputs; without it they are unknown.
    """
    return evaluate_all(e, env, read, xp)[e]  # type: ignore[return-value]


def bounds(e: Expr, env: Env, read: Reader | None = None, xp: Any = np) -> Interval:
    """The interval of the number ``e`` over each box (arguments as for `classify`)."""
    return evaluate_all(e, env, read, xp)[e]  # type: ignore[return-value]


def evaluate_all(e: Expr, env: Env, read: Reader | None, xp: Any) -> dict[Expr, Interval | Truth]:
    """The abstract value of ``e`` and of every subexpression that was needed for it."""
    order, forms = program(e)
    done: dict[Expr, Any] = {}
    for node in order:
        if is_sum(node, forms):
            total = _sum(forms[node], done, xp)
            done[node] = _COMPARE[node.op](total) if node.op in _COMPARE else total
        elif node.op == "var":
            done[node] = env[str(node.value)]
        elif node.op == "bool":
            done[node] = Truth(node.value, not node.value)
        elif node.op in ("input", "fact"):
            done[node] = read(node, done[node.args[0]]) if read else ANY
        elif node.op in ("forall", "exists"):
            done[node] = _quantifier(node, done, env, read, xp)
        elif node.op == "lookup":
            done[node] = _lookup(node, done, xp)
        elif node.op in _COMPARE:
            done[node] = UNDECIDED  # truth values compared with each other
        else:
            done[node] = _ABSTRACT[node.op](xp, *(done[a] for a in node.args))
    return done


# -- sums and comparisons --------------------------------------------------------------------------------


def _gcd(xp: Any, *steps: Any) -> Any:
    found: Any = 0
    for s in steps:
        if isinstance(found, int) and isinstance(s, int):
            found = math.gcd(found, s)
        elif not (isinstance(found, int) and found == 1):
            found = s if isinstance(found, int) and found == 0 else 1 if _one(s) else xp.gcd(found, s)
    return found


def _one(step: Any) -> bool:
    return isinstance(step, int) and step == 1


def _sum(form: Linear, done: Mapping[Expr, Any], xp: Any) -> Interval:
    lo: Any = form.constant
    hi: Any = form.constant
    steps = []
    for atom, c in form.terms:
        x: Interval = done[atom]
        low, high = (x.lo, x.hi) if c > 0 else (x.hi, x.lo)
        if c in (1, -1):
            lo, hi = (lo + low, hi + high) if c > 0 else (lo - low, hi - high)
        else:
            lo, hi = lo + c * low, hi + c * high
        steps.append(x.step if c in (1, -1) else abs(c) * x.step)
    return Interval(lo, hi, _gcd(xp, *steps))


def _zero(d: Interval) -> Truth:
    never = (d.lo > 0) | (d.hi < 0)
    if not _one(d.step):  # a constant has step 0: its lo alone decides
        never = never | (d.lo % _divisor(d.step) != 0)
    return Truth((d.lo == 0) & (d.hi == 0), never)


def _divisor(step: Any) -> Any:
    """The step as a divisor (1 for a constant)."""
    return max(step, 1) if isinstance(step, int) else step + (step == 0)


_COMPARE: dict[str, Callable[[Interval], Truth]] = {
    "lt": lambda d: Truth(d.hi < 0, d.lo >= 0),
    "le": lambda d: Truth(d.hi <= 0, d.lo > 0),
    "eq": _zero,
    "ne": lambda d: Truth(*reversed(_zero(d))),
}


# -- numbers ---------------------------------------------------------------------------------------------


def _corners(xp: Any, values: list[Any]) -> tuple[Any, Any]:
    lo = hi = values[0]
    for v in values[1:]:
        lo, hi = xp.minimum(lo, v), xp.maximum(hi, v)
    return lo, hi


def _mul(xp: Any, a: Interval, b: Interval) -> Interval:
    lo, hi = _corners(xp, [a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi])
    return Interval(lo, hi, _gcd(xp, xp.abs(a.lo) * b.step, xp.abs(b.lo) * a.step, a.step * b.step))


def _constant(x: Interval) -> int | None:
    return x.lo if isinstance(x.lo, int) and isinstance(x.hi, int) and x.lo == x.hi else None


def _floordiv(xp: Any, a: Interval, b: Interval) -> Interval:
    d = _constant(b)
    if d is not None and d != 0:
        low, high = (a.lo, a.hi) if d > 0 else (a.hi, a.lo)
        step = a.step // abs(d) if isinstance(a.step, int) and a.step % d == 0 else 1
        return Interval(low // d, high // d, step)
    # Any divisor but 0 leaves the size at most as it was.
    size = xp.maximum(xp.abs(a.lo), xp.abs(a.hi))
    zero = (b.lo <= 0) & (b.hi >= 0)
    low, high = (xp.where(zero, 1, x) for x in (b.lo, b.hi))
    lo, hi = _corners(xp, [a.lo // low, a.lo // high, a.hi // low, a.hi // high])
    return Interval(xp.where(zero, -size - 1, lo), xp.where(zero, size, hi))


def _mod(xp: Any, a: Interval, b: Interval) -> Interval:
    m = _constant(b)
    if m is not None and m < 0:  # x mod m = −(−x mod −m)
        mirrored = _mod(xp, Interval(-a.hi, -a.lo, a.step), Interval(-m, -m, 0))
        return Interval(-mirrored.hi, -mirrored.lo, mirrored.step)
    if m is not None and m > 0:
        first = a.lo // m
        whole = first == a.hi // m  # no multiple of m in between: the order is kept
        g = _gcd(xp, a.step, m)
        rest = 0 if _one(g) else a.lo % g
        lo = xp.where(whole, a.lo - first * m, rest)
        return Interval(lo, xp.where(whole, a.hi - first * m, m - g + rest), g)
    lo, hi = xp.minimum(b.lo + 1, 0), xp.maximum(b.hi - 1, 0)
    below = (a.lo >= 0) & (b.lo > 0)
    inside = below & (a.hi < b.lo)
    hi = xp.where(below, xp.minimum(hi, a.hi), hi)
    return Interval(xp.where(inside, a.lo, lo), xp.where(inside, a.hi, hi))


def _abs(xp: Any, a: Interval) -> Interval:
    step = a.step if _one(a.step) else _gcd(xp, a.step, 2 * xp.abs(a.lo))
    least = 0 if _one(step) else a.lo % _divisor(step)
    straddles = (a.lo < 0) & (a.hi > 0)
    low, high = xp.abs(a.lo), xp.abs(a.hi)
    return Interval(xp.where(straddles, least, xp.minimum(low, high)), xp.maximum(low, high), step)


def _join(xp: Any, a: Interval, b: Interval) -> Any:
    """A step under which both may stand side by side."""
    return 1 if _one(a.step) or _one(b.step) else _gcd(xp, a.step, b.step, xp.abs(a.lo - b.lo))


def _min(xp: Any, a: Interval, b: Interval) -> Interval:
    return Interval(xp.minimum(a.lo, b.lo), xp.minimum(a.hi, b.hi), _join(xp, a, b))


def _max(xp: Any, a: Interval, b: Interval) -> Interval:
    return Interval(xp.maximum(a.lo, b.lo), xp.maximum(a.hi, b.hi), _join(xp, a, b))


def _smear(x: Any) -> Any:
    """Ones from the highest one of a non-negative number down."""
    if isinstance(x, int):
        return (1 << x.bit_length()) - 1
    for shift in (1, 2, 4, 8, 16, 32)[: 6 if x.dtype.itemsize == 8 else 5]:
        x = x | (x >> shift)
    return x


def _xor(xp: Any, a: Interval, b: Interval) -> Interval:
    mixed = ((a.lo < 0) & (a.hi >= 0)) | ((b.lo < 0) & (b.hi >= 0))
    varying = _smear(xp.where(mixed, 0, (a.lo ^ a.hi) | (b.lo ^ b.hi)))
    lo = (a.lo ^ b.lo) & ~varying
    sizes = [xp.abs(x) for x in (a.lo, a.hi, b.lo, b.hi)]
    widest = _smear(_corners(xp, sizes)[1])
    return Interval(xp.where(mixed, -widest - 1, lo), xp.where(mixed, widest, lo | varying))


def _popcount(xp: Any, a: Interval) -> Interval:
    known = a.lo >= 0
    low, high = xp.where(known, a.lo, 0), xp.where(known, a.hi, 0)
    varying = _smear(low ^ high)
    prefix = low & ~varying
    ones = (low - low) + xp.bitwise_count(prefix)  # NumPy counts in uint8
    least = ones + (low != prefix)
    most = ones + xp.bitwise_count(varying) - (high != (prefix | varying))
    return Interval(xp.where(known, least, 0), xp.where(known, most, 64))


def _if(xp: Any, c: Truth, a: Any, b: Any) -> Any:
    if isinstance(a, Truth):
        return Truth(*(xp.where(c.always, x, xp.where(c.never, y, x & y)) for x, y in zip(a, b, strict=True)))
    lo = xp.where(c.always, a.lo, xp.where(c.never, b.lo, xp.minimum(a.lo, b.lo)))
    hi = xp.where(c.always, a.hi, xp.where(c.never, b.hi, xp.maximum(a.hi, b.hi)))
    return Interval(lo, hi, _join(xp, a, b))


# -- truth values ----------------------------------------------------------------------------------------


def _and(xp: Any, *parts: Truth) -> Truth:
    always, never = parts[0]
    for p in parts[1:]:
        always, never = always & p.always, never | p.never
    return Truth(always, never)


def _or(xp: Any, *parts: Truth) -> Truth:
    always, never = parts[0]
    for p in parts[1:]:
        always, never = always | p.always, never & p.never
    return Truth(always, never)


def bound_variable(node: Expr) -> tuple[str, int]:
    """The bound variable of a quantifier, and the most values it takes."""
    name, trips = node.value  # type: ignore[misc]
    return name, trips  # type: ignore[has-type]


def bound_range(node: Expr, first: Interval, last: Interval, xp: Any) -> Interval:
    """Where the bound variable of a quantifier can be."""
    _, trips = bound_variable(node)
    hi = xp.minimum(last.hi, first.hi + (trips - 1))
    return Interval(first.lo, xp.maximum(hi, first.lo))


def _quantifier(node: Expr, done: Mapping[Expr, Any], env: Env, read: Reader | None, xp: Any) -> Truth:
    """Over the whole range; and at its first and last value, of which each alone can decide against
    ``forall``.
    """
    first, last = done[node.args[0]], done[node.args[1]]
    name, _ = bound_variable(node)
    body = node.args[2]
    every = classify(body, {**env, name: bound_range(node, first, last, xp)}, read, xp)
    ends = [classify(body, {**env, name: end}, read, xp) for end in (first, last)]
    filled = first.hi <= last.lo
    empty = first.lo > last.hi
    if node.op == "forall":
        fails = every.never | ends[0].never | ends[1].never
        return Truth(every.always | empty, filled & fails)
    holds = every.always | ends[0].always | ends[1].always
    return Truth(filled & holds, every.never | empty)


MOST_ROWS = 8  # of a table, looked at one by one


def _lookup(node: Expr, done: Mapping[Expr, Any], xp: Any) -> Truth:
    if xp is not np and xp is not EXACT:
        return UNDECIDED  # tables are refined on the host
    table = node.value
    assert isinstance(table, Table)
    row, column = done[node.args[0]], done[node.args[1]]
    ends = np.broadcast_arrays(*(np.asarray(x, np.int64) for x in (row.lo, row.hi, column.lo, column.hi)))
    shape = ends[0].shape
    r0, r1, c0, c1 = (x.ravel() for x in ends)
    rows = table.entries.shape[0]
    outside = (r0 < 0) | (r1 >= rows) | (c0 < 0) | (c1 >= table.columns)
    r0, r1 = np.maximum(r0, 0), np.minimum(r1, rows - 1)
    c0, c1 = np.maximum(c0, 0), np.minimum(c1, table.columns - 1)
    nothing = (r1 < r0) | (c1 < c0)
    level = np.where(nothing, 0, _bits(np.maximum(r1 - r0, 0)))
    hits = np.zeros(len(r0), np.int64)
    for j in np.flatnonzero(np.bincount(level[~nothing])).tolist():
        at = (level == j) & ~nothing
        for coarse in (r0[at] >> j, r1[at] >> j):  # at most two coarse rows, by the choice of the level
            hits[at] += _listed(table, j, coarse, c0[at], c1[at])
    always = np.zeros(len(r0), bool)
    narrow = np.flatnonzero(~outside & (hits > c1 - c0) & ~nothing & (r1 - r0 < MOST_ROWS))
    held = np.ones(len(narrow), bool)
    for i in range(MOST_ROWS):
        r = np.minimum(r0[narrow] + i, r1[narrow])
        held &= _listed(table, 0, r, c0[narrow], c1[narrow]) == c1[narrow] - c0[narrow] + 1
    always[narrow] = held
    never = nothing | (hits == 0)
    if xp is EXACT:
        return Truth(bool(always[0]), bool(never[0]))
    return Truth(always.reshape(shape), never.reshape(shape))


def _listed(table: Table, level: int, row: Any, first: Any, last: Any) -> Any:
    """How many of the columns first … last the coarse row lists."""
    keys, stride = table.pyramid[level]
    base = row * stride
    return np.searchsorted(keys, base + last, side="right") - np.searchsorted(keys, base + first, side="left")


def _bits(x: Any) -> Any:
    return np.bitwise_count(_smear(x))


_ABSTRACT: dict[str, Any] = {
    "mul": _mul,
    "floordiv": _floordiv,
    "mod": _mod,
    "abs": _abs,
    "min": _min,
    "max": _max,
    "xor": _xor,
    "popcount": _popcount,
    "if": _if,
    "and": _and,
    "or": _or,
    "not": lambda xp, a: Truth(a.never, a.always),
}
