"""Exact sums of a predicate (or of a count) over all (query, slot) pairs, without visiting them.

The rectangle of pairs is halved again and again. Boxes on which bounds decide the expression are done;
of the others, those that look alike (`signature.classes`) are counted once. A window, a stride or a
hierarchy has a handful of classes at each size, so that a million tokens take a few thousand boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from patterndsl.analysis.signature import QUANTIFIERS, Int64, classes, fits
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, Q, all_of, any_of, var, where
from patterndsl.ir.interval import Interval, Truth, bound_variable, evaluate_all
from patterndsl.ir.linear import program
from patterndsl.ir.ranges import simplify_over

LEAF = 32  # queries (and tokens under the slots) of the boxes that are evaluated pair by pair
CELLS = 1 << 18  # values evaluated at a time
ROWS = 1 << 24  # queries for which counts per query are kept
OVERHEAD = 5000  # what a subexpression costs in each step, however few the boxes
PROFILES = 1 << 26  # numbers held for counts per query, beyond which only the total is found


@dataclasses.dataclass(frozen=True)
class Tally:
    """A sum over all pairs: between ``lower`` and ``upper``, which are equal when it is exact. ``rows``: the
    least sum for each query, int64 [n_q], where it was asked for and found; ``most``: the greatest, None
    where it is the same."""

    lower: int
    upper: int
    rows: Int64 | None
    most: Int64 | None = None

    @property
    def exact(self) -> bool:
        return self.lower == self.upper

    @property
    def row_bounds(self) -> tuple[Int64, Int64] | None:
        """The least and the greatest sum for each query."""
        if self.rows is None:
            return None
        return self.rows, self.rows if self.most is None else self.most


class Budget:
    """How much work is left, in evaluated subexpressions (some 5·10^7 a second)."""

    def __init__(self, work: float = 1.5e8) -> None:
        self.work = work

    def spend(self, amount: float) -> bool:
        """Take ``amount``, unless there is not as much left."""
        if amount > self.work:
            return False
        self.work -= amount
        return True


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles in which every pair is kept, and others in which one may be. Not ``exact``: some tiles of the
    latter kind are not known to keep any."""

    full: int
    partial: int
    exact: bool


def tiles(
    e: Expr, slot: str, first: int, n_q: int, slots: int, block: int, budget: Budget | None = None
) -> Tiles:
    """Square tiles of ``block`` (a power of two) that ``e`` makes full or partial; arguments as for
    `tally`."""
    size = _power(max(n_q, block)), _power(max(slots, block))
    whole = _cut(e, slot, first, (n_q, slots), size)
    return _Quadtree(whole, slot, first, size, (block, block), budget or Budget(), block * block).tiles(
        block * block
    )


@dataclasses.dataclass(frozen=True)
class _Step:
    """Boxes of one size, in the order parent, half of the queries, half of the slots. ``value``: where
    decided; ``link``: the class of the others, else −1."""

    queries: int
    slots: int
    split: tuple[int, int]
    value: Int64
    link: Int64


def tally(
    e: Expr,
    slot: str,
    first: int,
    n_q: int,
    slots: int,
    *,
    stride: int = 1,
    rows: bool = True,
    budget: Budget | None = None,
) -> Tally:
    """The sum of ``e`` over queries ``first`` … ``first + n_q − 1`` and slots 0 … ``slots − 1``.

    ``e`` is over ``q`` and ``slot`` (``k`` or ``c``), without run-time inputs. ``stride``: tokens from a
    slot to the next, which gives the boxes their shape (for speed only). Where the budget does not
    suffice, or a value does not fit 64 bits, the sum is bounded.
    """
    if n_q == 0 or slots == 0:
        return Tally(0, 0, np.zeros(n_q, np.int64))
    rows = rows and n_q <= ROWS
    size = _power(n_q), _power(slots)
    whole = _cut(e, slot, first, (n_q, slots), size)
    tree = _Quadtree(whole, slot, first, size, (LEAF, max(1, LEAF // stride)), budget or Budget())
    low, high = tree.totals()
    exact = low == high
    found = tree.rows() if rows and exact else None
    return Tally(low, high, None if found is None else found[:n_q])


def _power(x: int) -> int:
    return 1 << (x - 1).bit_length()


def _cut(e: Expr, slot: str, first: int, exist: tuple[int, int], size: tuple[int, int]) -> Expr:
    """``e``, and nothing for queries and slots that do not exist."""
    tests = [first + exist[0] > Q] * (size[0] > exist[0]) + [var(slot) < exist[1]] * (size[1] > exist[1])
    return all_of(e, *tests) if e.sort == "bool" else where(all_of(*tests), e, 0)


class _Quadtree:
    def __init__(
        self,
        e: Expr,
        slot: str,
        first: int,
        size: tuple[int, int],
        leaf: tuple[int, int],
        budget: Budget,
        least: int = 16,
    ) -> None:
        whole = {"q": Interval(first, first + size[0] - 1), slot: Interval(0, size[1] - 1)}
        self.e, self.slot, self.leaf, self.budget = simplify_over(probed(e), whole), slot, leaf, budget
        self.least = least  # pairs of a box that is evaluated pair by pair even where there are many
        self.counts = e.sort != "bool"
        self.nodes, self.trips, self.visits = len(self.e.walk()), _trips(self.e), _visits(self.e)
        self.steps: list[_Step] = []
        self.leaves: Int64 | None = None  # [classes, queries]: sums of the smallest boxes
        self.unknown: tuple[Int64, Int64] | None = None  # instead: least and greatest value in the last boxes
        if fits(self.e, whole):
            with np.errstate(divide="ignore"):  # a zero divisor makes a pair's value 0 here
                self.descend(np.array([first]), np.array([0]), size, (1, 1))
        else:
            self.give_up(*size)

    # -- down ----------------------------------------------------------------------------------------

    def descend(self, q0: Int64, s0: Int64, size: tuple[int, int], split: tuple[int, int]) -> None:
        while True:
            queries, slots = size
            if not self.budget.spend((len(q0) * 8 + OVERHEAD) * self.visits):
                return self.give_up(queries, slots)
            low, high = self.values(q0, s0, size)
            mixed = np.flatnonzero(low < high)
            link = np.full(len(q0), -1)
            if len(mixed):
                q0, s0 = q0[mixed], s0[mixed]
                chosen, link[mixed] = classes(self.e, self.env(q0, s0, size), {"q": q0, self.slot: s0})
                q0, s0 = q0[chosen], s0[chosen]
                self.unknown = (low[mixed][chosen], high[mixed][chosen])
            self.steps.append(_Step(queries, slots, split, np.where(low == high, low, 0), link))
            if not len(mixed):
                self.leaves = np.zeros((0, queries), np.int64)
                return
            small = queries <= self.leaf[0] and slots <= self.leaf[1]
            if small and (len(q0) * queries * slots <= CELLS or queries * slots <= self.least):
                if self.budget.spend(len(q0) * queries * slots * self.nodes * self.trips):
                    self.leaves = self.evaluate(q0, s0, size)
                return
            least = (1, 1) if small else self.leaf
            split = (1 + (queries > least[0]), 1 + (slots > least[1]))
            size = (queries // split[0], slots // split[1])
            shape = (len(q0), *split)
            q0 = np.broadcast_to((q0[:, None] + np.arange(split[0]) * size[0])[:, :, None], shape).ravel()
            s0 = np.broadcast_to((s0[:, None] + np.arange(split[1]) * size[1])[:, None, :], shape).ravel()

    def env(self, q0: Int64, s0: Int64, size: tuple[int, int]) -> Mapping[str, Interval]:
        return {"q": Interval(q0, q0 + (size[0] - 1)), self.slot: Interval(s0, s0 + (size[1] - 1))}

    def values(self, q0: Int64, s0: Int64, size: tuple[int, int]) -> tuple[Int64, Int64]:
        """The least and the greatest value in each box, [boxes]."""
        value = evaluate_all(self.e, self.env(q0, s0, size), None, np)[self.e]
        if isinstance(value, Truth):
            low, high = np.asarray(value.always, np.int64), 1 - np.asarray(value.never, np.int64)
        else:
            low, high = np.asarray(value.lo, np.int64), np.asarray(value.hi, np.int64)
        return np.broadcast_to(low, len(q0)), np.broadcast_to(high, len(q0))

    def give_up(self, queries: int, slots: int) -> None:
        if not self.steps:  # not even the whole was looked at
            most = np.array([2**31 if self.counts else 1])
            self.steps.append(_Step(queries, slots, (1, 1), np.zeros(1, np.int64), np.zeros(1, np.int64)))
            self.unknown = (np.array([0]), most)

    def evaluate(self, q0: Int64, s0: Int64, size: tuple[int, int]) -> Int64:
        """For each box the sums over its rows."""
        found = np.zeros((len(q0), size[0]), np.int64)
        at_once = max(1, CELLS // (size[0] * size[1]))
        for i in range(0, len(q0), at_once):
            q = q0[i : i + at_once, None, None] + np.arange(size[0])[:, None]
            s = s0[i : i + at_once, None, None] + np.arange(size[1])[None, :]
            found[i : i + at_once] = self.at(*np.broadcast_arrays(q, s)).sum(axis=2)
        return found

    def at(self, q: Int64, s: Int64) -> Int64:
        """The expression at single pairs."""
        with np.errstate(divide="ignore"):
            if self.trips == 1:
                return np.broadcast_to(evaluate(self.e, {"q": q, self.slot: s}), q.shape).astype(np.int64)
            # Intervals of one pair spare most quantifiers their loop.
            shape, q, s = q.shape, q.ravel(), s.ravel()
            low, high = self.values(q, s, (1, 1))
            values, rest = np.array(low), np.flatnonzero(low < high)
            if len(rest):
                values[rest] = evaluate(self.e, {"q": q[rest], self.slot: s[rest]})
            return values.reshape(shape)

    # -- up ------------------------------------------------------------------------------------------

    def totals(self) -> tuple[int, int]:
        """The least and the greatest sum that is possible."""
        last = self.steps[-1]
        area = last.queries * last.slots
        if self.leaves is not None:
            low = high = self.leaves.sum(axis=1)
        else:
            assert self.unknown is not None
            low, high = self.unknown[0] * area, self.unknown[1] * area
        for step in reversed(self.steps):
            area = step.queries * step.slots
            low, high = (_gather(x, step) + step.value * area for x in (low, high))
            low, high = (x.reshape(-1, step.split[0] * step.split[1]).sum(axis=1) for x in (low, high))
        return int(low[0]), int(high[0])

    def tiles(self, area: int) -> Tiles:
        """Full and partial tiles of so many pairs, which the smallest boxes are."""
        last = self.steps[-1]
        if self.leaves is not None:
            sums = self.leaves.sum(axis=1)
            full, partial = (sums == area).astype(np.int64), ((sums > 0) & (sums < area)).astype(np.int64)
        else:
            assert self.unknown is not None
            partial = np.full(len(self.unknown[0]), last.queries * last.slots // area)
            full = 0 * partial
        for step in reversed(self.steps):
            full, partial = _gather(full, step), _gather(partial, step)
            full = full + (step.value > 0) * (step.queries * step.slots // area)
            full, partial = (
                x.reshape(-1, step.split[0] * step.split[1]).sum(axis=1) for x in (full, partial)
            )
        return Tiles(int(full[0]), int(partial[0]), self.leaves is not None)

    def rows(self) -> Int64 | None:
        """The sum for each query."""
        assert self.leaves is not None
        if any(len(s.link) // s.split[1] * s.queries > PROFILES for s in self.steps):
            return None
        found = self.leaves
        for step in reversed(self.steps):
            halves, sides = step.split
            link = step.link.reshape(-1, halves, sides)
            value = step.value.reshape(-1, halves, sides).sum(axis=2) * step.slots
            total = np.repeat(value[:, :, None], step.queries, axis=2)
            for side in range(sides):
                at = link[:, :, side] >= 0
                total[at] += found[link[:, :, side][at]]
            found = total.reshape(len(link), halves * step.queries)
        whole: Int64 = found[0]
        return whole


def _gather(of_class: Int64, step: _Step) -> Int64:
    if not len(of_class):
        return np.zeros(len(step.link), np.int64)
    return np.where(step.link >= 0, of_class[step.link], 0)


def probed(e: Expr) -> Expr:
    """The same truth, with the body of each quantifier also tested at its second value: together with the
    ends, at which `ir.interval` looks, this refutes most bodies that alternate."""

    def go(x: Expr) -> Expr | None:
        if x.op not in QUANTIFIERS or bound_variable(x)[1] <= 2:
            return None
        first, last, body = x.args
        second = body.subs({bound_variable(x)[0]: first + 1})
        if x.op == "forall":
            return all_of((last <= first) | second, x)
        return any_of((first < last) & second, x)

    return e.rebuild(go)


def _visits(e: Expr) -> int:
    """Subexpressions whose bounds are found for those of ``e``: quantifiers look at theirs thrice."""
    order = program(e).order
    return len(order) + sum(3 * _visits(x.args[2]) for x in order if x.op in QUANTIFIERS)


def _trips(e: Expr) -> int:
    """How often the body of the deepest quantifiers is evaluated for one pair."""
    found: dict[Expr, int] = {}
    for x in e.walk():
        inside = max((found[a] for a in x.args), default=1)
        found[x] = inside * bound_variable(x)[1] if x.op in QUANTIFIERS else inside
    return found[e]
