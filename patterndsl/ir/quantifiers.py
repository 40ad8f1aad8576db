"""`forall` over the tokens of a chunk, without the loop where the predicate's shape allows.

``forall(low … high): body`` is exact either way; this only finds the ends at which a body that is monotone or
convex in the bound variable has to be tested. What is left keeps its quantifier, which every interpreter
reads.
"""

from __future__ import annotations

from patterndsl.ir.critical import changes
from patterndsl.ir.expr import Expr, all_of, any_of, build, clip, quantify, var


def forall(name: str, low: Expr, high: Expr, body: Expr, trips: int) -> Expr:
    """``name`` in low … high (not empty, at most ``trips`` values): body holds for all."""
    if trips == 1:
        return body.subs({name: low})
    return _forall(name, low, high, push_not(body), trips)


def push_not(e: Expr) -> Expr:
    """Negation normal form: ``not`` only at comparisons' outside, where folding has turned it round
    already."""
    if e.op == "not":
        inner = e.args[0]
        if inner.op == "and":
            return any_of(*(push_not(~a) for a in inner.args))
        if inner.op == "or":
            return all_of(*(push_not(~a) for a in inner.args))
        return e
    if e.op in ("and", "or"):
        return build(e.op, *(push_not(a) for a in e.args))
    return e


def _forall(name: str, low: Expr, high: Expr, body: Expr, trips: int) -> Expr:
    if name not in body.names():
        return body
    if body.op == "and":
        return all_of(*(_forall(name, low, high, part, trips) for part in body.args))
    if body.op == "or":
        free = [a for a in body.args if name not in a.names()]
        rest = [a for a in body.args if name in a.names()]
        if len(rest) == 1:
            return any_of(*free, _forall(name, low, high, rest[0], trips))
        return any_of(*free, _pointwise(name, low, high, any_of(*rest), trips))
    ends = _ends(name, low, high, body, trips)
    return ends if ends is not None else _pointwise(name, low, high, body, trips)


def _pointwise(name: str, low: Expr, high: Expr, body: Expr, trips: int) -> Expr:
    """The test at one value of each stretch on which the body is constant, where these are known and few."""
    at = changes(body, name)
    if at is None or len(at) + 1 > trips:
        return quantify("forall", name, low, high, body, trips)
    return all_of(*(body.subs({name: x}) for x in (low, *(clip(c, low, high) for c in at))))


def _ends(name: str, low: Expr, high: Expr, body: Expr, trips: int) -> Expr | None:
    """The test at the ends of the range that decides a comparison for all of it, if there is one."""

    def at_both(e: Expr) -> Expr:
        return e.subs({name: low}) & e.subs({name: high})

    if body.op in ("lt", "le"):
        left, right = body.args
        if left.op == "abs" and name not in right.names() and slope(left.args[0], name) is not None:
            return at_both(body)  # |x| < r is convex in a monotone x
        if right.op == "abs" and name not in left.names():
            x = right.args[0]
            if slope(x, name) in (1, -1):  # steps of one cannot leap over |x| < r, unless r ≤ 0
                above, below = build(body.op, left, x), build(body.op, left, -x)
                return at_both(above) | at_both(below) | build(body.op, left, 0)
            return None
        rise, fall = slope(left, name), slope(right, name)
        if rise is not None and fall is not None and rise * fall <= 0:  # left − right is monotone
            return body.subs({name: high if rise > 0 or fall < 0 else low})
    if body.op == "eq":
        left, right = body.args
        if (slope(left, name) is not None and name not in right.names()) or (
            slope(right, name) is not None and name not in left.names()
        ):
            return at_both(body)  # a monotone side equal at both ends is constant between
    return None


def slope(e: Expr, name: str) -> int | None:
    """The direction in which ``e`` moves with the variable: its coefficient where that is constant, ±2 for a
    monotone step function, 0 where it does not move, None where not known to be monotone."""
    if e is var(name):
        return 1
    if name not in e.names():
        return 0
    s = [slope(a, name) for a in e.args]
    match e.op:
        case "add" | "sub" if s[0] is not None and s[1] is not None:
            other = s[1] if e.op == "add" else -s[1]
            return s[0] + other if s[0] * other >= 0 else None
        case "neg" if s[0] is not None:
            return -s[0]
        case "mul":
            for x, factor in ((s[0], e.args[1].number), (s[1], e.args[0].number)):
                if factor is not None and x is not None:
                    return x * factor
        case "floordiv" if s[0] is not None:
            divisor = e.args[1].number
            if divisor:
                return 2 if (s[0] > 0) == (divisor > 0) else -2
        case "min" | "max" if s[0] is not None and s[1] is not None and s[0] * s[1] >= 0:
            return 2 if max(s[0], s[1]) > 0 else -2
    return None
