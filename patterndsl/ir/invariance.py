"""Which shifts of its variables leave an expression as it is.

Let every variable v move by ``slope[v] · t``. An expression moves with them if its value changes by a number
in proportion to t, for every t that is a multiple of some period: ``q // 4`` by t/4, for multiples of 4;
``q − k`` by nothing. What is not seen to move so is taken not to, so that an answer is a proof.

Run-time inputs, and facts about q and k, are numbers of which nothing is known, wherever they are read: what
is the same under a shift is then what can be known of an expression without them. ``start[q] <= k`` may hold
or not at every k. Or (``rigid``) inputs move along with their tokens and keep their values: then
``doc[q] == doc[k]`` is the same under a shift, and ``start[q] <= k`` is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from patterndsl.ir.expr import COMPARE_OPS, Expr, bound


class Motion(NamedTuple):
    """Under a shift by t, a multiple of ``period``, the value rises by ``slope`` · t. ``loose``: it is a
    run-time input plus something, so that it can be any number."""

    slope: Fraction
    period: int
    loose: bool = False


STILL = Motion(Fraction(0), 1)


def invariance(e: Expr, slopes: Mapping[str, Fraction], *, rigid: bool = False) -> int | None:
    """The period of the shifts under which ``e`` keeps its value, as far as it is known without run-time
    inputs or, if ``rigid``, where these move with their tokens; None where none is found.

    ``slopes``: of each free variable. Shifts are those by which all of them stay whole numbers.
    """
    moves = {name: Motion(slope, slope.denominator) for name, slope in slopes.items()}
    found = _motion(e, moves, rigid)
    if found is None or found.slope:
        return None
    return math.lcm(found.period, *(m.period for m in moves.values()))


def _motion(e: Expr, moves: Mapping[str, Motion], rigid: bool) -> Motion | None:
    free = e.free()
    done: dict[Expr, Motion | None] = {}
    for node in e.walk():
        if free[node] <= moves.keys():  # else in the body of a quantifier, which looks at it itself
            done[node] = _node(node, done, moves, rigid)
    return done.get(e)


def _node(
    e: Expr, done: Mapping[Expr, Motion | None], moves: Mapping[str, Motion], rigid: bool
) -> Motion | None:
    if e.op == "var":
        return moves[str(e.value)]
    if e.op in ("forall", "exists"):
        return _quantifier(e, done, moves, rigid)
    if e.op in ("input", "fact") and not rigid:
        return Motion(Fraction(0), 1, loose=True)
    if e.op == "input" and e.args[0].op == "var":
        return STILL
    if e.op in ("input", "fact"):  # read elsewhere than where the token is
        return None
    parts = [done[a] for a in e.args]
    args = [p for p in parts if p is not None]
    if len(args) < len(parts):
        return None
    period = math.lcm(*(p.period for p in args))
    loose = sum(p.loose for p in args) == 1  # of two, what is unknown may cancel
    slopes = [p.slope for p in args]
    factors = [a.number for a in e.args]
    match e.op:
        case "add":
            return Motion(slopes[0] + slopes[1], period, loose)
        case "sub":
            return Motion(slopes[0] - slopes[1], period, loose)
        case "neg":
            return Motion(-slopes[0], period, loose)
        case "abs" | "lt" | "le" | "eq" | "ne" if loose:
            return Motion(Fraction(0), period)
        case "mul" if factors[0] is not None:
            return Motion(slopes[1] * factors[0], period)
        case "mul" if factors[1] is not None:
            return Motion(slopes[0] * factors[1], period)
        case "floordiv" | "mod" if factors[1]:
            turns = slopes[0] / factors[1]
            slope = turns if e.op == "floordiv" else Fraction(0)
            return Motion(slope, math.lcm(period, turns.denominator))
        case "if" if not slopes[0]:
            slopes = slopes[1:]
    if not any(slopes):
        return Motion(Fraction(0), period)
    if e.op in COMPARE_OPS and slopes[0] == slopes[1]:
        return Motion(Fraction(0), period)
    if e.op in ("min", "max", "if") and slopes[0] == slopes[1]:
        return Motion(slopes[0], period)
    return None


def _quantifier(
    e: Expr, done: Mapping[Expr, Motion | None], moves: Mapping[str, Motion], rigid: bool
) -> Motion | None:
    """Its range moves as a whole, and its body is the same under that shift."""
    first, last = done[e.args[0]], done[e.args[1]]
    if first is None or last is None or first.slope != last.slope:
        return None
    name, _ = bound(e)
    body = _motion(e.args[2], {**moves, name: Motion(first.slope, first.slope.denominator)}, rigid)
    if body is None or body.slope:
        return None
    period = math.lcm(first.period, last.period, body.period, first.slope.denominator)
    return Motion(Fraction(0), period)
