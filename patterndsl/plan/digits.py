"""Places: an order of a run of positions, for tiles of a known size.

A run of places has an interval of values for each coordinate, so that a predicate over coordinates is judged
over boxes of places as over any others; neither the places nor the pairs of a box are listed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patterndsl.ir.expr import Expr, build, var
from patterndsl.ir.interval import EXACT, Env, Interval, bounds
from patterndsl.ir.linear import Linear, linear
from patterndsl.ir.ranges import simplify_over
from patterndsl.plan.orders import Scheme

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Digit(NamedTuple):
    """A digit of a place: of which coordinate, and whether it is the place in a tile of it (else the
    coordinate, or the number of the tile); its least value, how many values it has, what one step of it adds
    to the coordinate and to the place."""

    coordinate: int
    within: bool
    least: int
    extent: int
    worth: int
    stride: int


@dataclasses.dataclass(frozen=True)
class Places:
    """The positions first … first + count − 1 in an order, padded so that there are a multiple of ``block``
    places and that no tile straddles classes without need."""

    first: int
    count: int
    scheme: Scheme
    block: int

    @functools.cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The least and the largest value of each coordinate."""
        low, high, found = self.first, self.first + self.count - 1, []
        for s in self.scheme.strides:
            found.append((low // s, high // s))
            low, high = (0, s - 1) if low // s != high // s else (low % s, high % s)
        return tuple(found)

    @functools.cached_property
    def digits(self) -> tuple[Digit, ...]:
        """The digits of a place, major first."""
        found, stride = list[Digit](), 1
        order = self.scheme.order
        for i, (coordinate, which) in reversed(list(enumerate(order))):
            low, high = self.ranges[coordinate]
            tile = self.scheme.tiles[coordinate]
            worth = 1
            if tile is not None:
                size, shift = tile
                low, high = ((low + shift) // size, (high + shift) // size) if which == 0 else (0, size - 1)
                worth = 1 if which else size
            found.append(Digit(coordinate, bool(which), low, high - low + 1, worth, stride))
            stride *= high - low + 1
            if len(order) - i == self.scheme.inner:
                stride = aligned(stride, self.block)
        return tuple(reversed(found))

    @property
    def size(self) -> int:
        """The number of places."""
        major = self.digits[0]
        return -(-major.stride * major.extent // self.block) * self.block

    def coordinates(self, positions: Int64) -> list[Int64]:
        """The coordinates of positions."""
        found, rest = [], positions
        for s in self.scheme.strides:
            found.append(rest // s)
            rest = rest % s
        return found

    def of(self, positions: Int64) -> Int64:
        """The places of positions."""
        place = np.zeros_like(positions)
        coordinates = self.coordinates(positions)
        for digit in self.digits:
            tile = self.scheme.tiles[digit.coordinate]
            value = coordinates[digit.coordinate]
            if tile is not None:
                size, shift = tile
                value = (value + shift) % size if digit.within else (value + shift) // size
            place += (value - digit.least) * digit.stride
        return place

    @functools.cached_property
    def order(self) -> Int32:
        """The index (position less ``first``) at each place, −1 at empty ones."""
        found = np.full(self.size, -1, np.int32)
        index = np.arange(self.count)
        found[self.of(index + self.first)] = index
        return found

    @functools.cached_property
    def before(self) -> Int32:
        """How many positions have a smaller place, for each place and one past the last."""
        total = np.zeros(self.size + 1, np.int32)
        np.cumsum(self.order >= 0, out=total[1:])
        return total

    def real(self, low: Int64, high: Int64) -> Int64:
        """How many of the places low … high are not empty."""
        found: Int64 = (self.before[high + 1] - self.before[low]).astype(np.int64)
        return found

    def span(self, low: Int64, high: Int64) -> list[Interval]:
        """The values of each coordinate at the places low … high: of those that are not empty, a superset."""
        least = [np.zeros_like(low) for _ in self.scheme.strides]
        most = [np.zeros_like(low) for _ in self.scheme.strides]
        same = np.ones(len(low), bool)
        for digit in self.digits:
            a, low = np.divmod(low, digit.stride)
            b, high = np.divmod(high, digit.stride)
            high = np.where(b < digit.extent, high, digit.stride - 1)  # in the padding: all of the class
            b = np.minimum(b, digit.extent - 1)
            a = np.minimum(a, digit.extent - 1)
            least[digit.coordinate] += (np.where(same, a, 0) + digit.least) * digit.worth
            most[digit.coordinate] += (np.where(same, b, digit.extent - 1) + digit.least) * digit.worth
            same &= a == b
        found = []
        for i, (floor, ceiling) in enumerate(self.ranges):
            tile = self.scheme.tiles[i]
            shift = 0 if tile is None else tile[1]
            lo = np.clip(least[i] - shift, floor, ceiling)
            found.append(Interval(lo, np.maximum(np.clip(most[i] - shift, floor, ceiling), lo)))
        return found


def aligned(size: int, block: int) -> int:
    """The places that a class of ``size`` takes: few, of those that let it touch the fewest tiles."""
    if size <= block:
        while block % 2 == 0 and block // 2 >= size:
            block //= 2
        return block
    best, grain = (np.inf, 0), block
    while True:
        padded = -(-size // grain) * grain
        best = min(best, ((padded + block - grain) / block, padded))
        if grain % 2:
            return int(best[1])
        grain //= 2


# -- predicates over coordinates -------------------------------------------------------------------------


def names(variable: str, scheme: Scheme) -> tuple[str, ...]:
    """The variables that stand for the coordinates of ``variable``."""
    return tuple(f"{variable}.{i}" for i in range(len(scheme.strides)))


def over_coordinates(e: Expr, places: dict[str, Places], env: Env) -> Expr:
    """``e`` with the variables that have places replaced by their coordinates, and simplified.

    Equal to ``e`` at real places only. ``env``: the intervals of the other variables. Quotients and
    remainders by a grid's extent, or a stride, become coordinates; that is what makes boxes of places boxes
    of coordinates.
    """
    ranges = dict(env)
    positions: dict[str, Expr] = {}
    tails: dict[frozenset[tuple[Expr, int]], int] = {}
    for variable, p in places.items():
        own = [var(name) for name in names(variable, p.scheme)]
        terms = list(zip(own, p.scheme.strides, strict=True))
        total: Expr | int = 0
        for x, s in terms:
            total = total + x * s
        positions[variable] = total  # type: ignore[assignment]
        ranges |= {name: Interval(*r) for name, r in zip(names(variable, p.scheme), p.ranges, strict=True)}
        for i in range(1, len(terms)):  # real positions: what follows a coordinate is less than its stride
            for j in range(i, len(terms)):
                unit = terms[j][1]
                if all(s % unit == 0 for _, s in terms[i:j]):
                    tail = frozenset((x, s // unit) for x, s in terms[i : j + 1])
                    tails[tail] = (terms[i - 1][1] - 1) // unit + 1
    substituted = e.subs(positions)
    free = substituted.free()

    def simpler(node: Expr, args: tuple[Expr, ...]) -> Expr:
        divisor = args[1].number if node.op in ("floordiv", "mod") else None
        if divisor is None or divisor <= 0:
            return build(node.op, *args, value=node.value)
        return _divided(node.op, linear(args[0]), divisor, ranges, tails)

    done: dict[Expr, Expr] = {}
    for node in substituted.walk():
        if free[node] <= ranges.keys():
            done[node] = simpler(node, tuple(done.get(a, a) for a in node.args)) if node.args else node
        else:  # in the body of a quantifier
            done[node] = node
    return simplify_over(done[substituted], ranges)


def _divided(
    op: str, form: Linear, divisor: int, env: Env, tails: dict[frozenset[tuple[Expr, int]], int]
) -> Expr:
    """The quotient, or the remainder, of a sum: multiples of the divisor are taken out of it first."""
    quotient = Linear(tuple((x, c // divisor) for x, c in form.terms if c % divisor == 0), 0)
    rest = Linear(
        tuple((x, c % divisor if abs(c) >= divisor else c) for x, c in form.terms if c % divisor),
        form.constant,
    )
    if any(abs(c) >= divisor and c % divisor for _, c in form.terms):  # c·x = (c // d)·d·x + (c % d)·x
        more = tuple((x, c // divisor) for x, c in form.terms if abs(c) >= divisor and c % divisor)
        quotient = Linear((*quotient.terms, *more), 0)
    low, high = _bounds(rest, env, tails)
    turn = low // divisor
    if turn == high // divisor:
        quotient = quotient._replace(constant=quotient.constant + turn)
        rest = rest._replace(constant=rest.constant - turn * divisor)
        return _sum(quotient) if op == "floordiv" else _sum(rest)
    if op == "floordiv":
        return _sum(quotient) + build("floordiv", _sum(rest), divisor)
    return build("mod", _sum(rest), divisor)


def _bounds(form: Linear, env: Env, tails: dict[frozenset[tuple[Expr, int]], int]) -> tuple[int, int]:
    known = bounds(_sum(form), env, xp=EXACT)
    tail = tails.get(frozenset(form.terms))
    if tail is None:
        return known.lo, known.hi
    return max(known.lo, form.constant), min(known.hi, form.constant + tail - 1)


def _sum(form: Linear) -> Expr:
    total = build("mul", form.terms[0][0], form.terms[0][1]) if form.terms else build("add", 0, 0)
    for x, c in form.terms[1:]:
        total = total + x * c if c > 0 else total - x * -c
    return total + form.constant if form.constant >= 0 else total - -form.constant
