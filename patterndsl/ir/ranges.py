"""What is known of an expression over one box of positions: what to drop, and whether int32 is wide
enough.
"""

from __future__ import annotations

from collections.abc import Iterator

from patterndsl.ir.expr import FALSE, INT_OPS, TRUE, Expr, K, N, Q, as_expr, build
from patterndsl.ir.interval import (
    EXACT,
    Env,
    Interval,
    Truth,
    bound_range,
    bound_variable,
    bounds,
    evaluate_all,
)
from patterndsl.ir.nodes import Fact, Node, Pattern, Where
from patterndsl.ir.normal import walk
from patterndsl.patterns.base import Kind, parameters

INT32 = 2**31
INPUTS = 2**28
"""What run-time inputs that are computed with may reach, either side of 0 (`computed_inputs`)."""


def simplify_over(e: Expr, env: Env) -> Expr:
    """``e``, simplified for positions within one box: ``k < 10**12`` becomes true, ``max(q, 0)`` becomes
    ``q``.

    Equal to ``e`` at every position of the box, and only there. ``env`` holds intervals of Python integers.
    """
    known = evaluate_all(e, env, None, EXACT)
    free = e.free()
    done: dict[Expr, Expr] = {}
    for node in e.walk():
        if not free[node] <= env.keys():
            continue  # in the body of a quantifier: simplified with it
        decided = _decided(node, known)
        done[node] = _rebuilt(node, done, env) if decided is None else decided
    return done[e]


def _decided(node: Expr, known: dict[Expr, Interval | Truth]) -> Expr | None:
    value = known.get(node)
    if isinstance(value, Truth):
        return TRUE if value.always else FALSE if value.never else None
    if isinstance(value, Interval) and value.lo == value.hi:
        return as_expr(value.lo)
    return None


def _rebuilt(node: Expr, done: dict[Expr, Expr], env: Env) -> Expr:
    if node.op in ("forall", "exists"):
        first, last, body = node.args
        return _quantified(node, done[first], done[last], simplify_over(body, _within(node, env)))
    args = [done[a] for a in node.args]
    if node.op in ("min", "max"):
        a, b = (bounds(x, env, xp=EXACT) for x in node.args)
        if a.hi <= b.lo or b.hi <= a.lo:
            return args[1] if (a.hi <= b.lo) == (node.op == "max") else args[0]
    if node.op in ("abs", "mod"):
        x = bounds(node.args[0], env, xp=EXACT)
        if node.op == "abs" and (x.lo >= 0 or x.hi <= 0):
            return args[0] if x.lo >= 0 else -args[0]
        if node.op == "mod" and x.lo >= 0 and x.hi < bounds(node.args[1], env, xp=EXACT).lo:
            return args[0]
    return build(node.op, *args, value=node.value)


def _within(node: Expr, env: Env) -> Env:
    """The scope of a quantifier's body."""
    first, last = (bounds(x, env, xp=EXACT) for x in node.args[:2])
    name, _ = bound_variable(node)
    return {**env, name: bound_range(node, first, last, EXACT)}


def _quantified(node: Expr, first: Expr, last: Expr, body: Expr) -> Expr:
    if body.op == "bool" and body.value is (node.op == "forall"):
        return body  # whatever the range
    return build(node.op, first, last, body, value=node.value)


def computed_inputs(tree: Node) -> frozenset[str]:
    """Names of the run-time inputs that a pattern computes with, rather than only compares."""
    found: set[str] = set()
    for p in walk(tree):
        if isinstance(p, Where):
            keep = p.keep
        elif isinstance(p, Pattern) and any(_is_labels(x.kind) for x in parameters(type(p))):
            keep = p.keep(Q, K, N)
        else:
            continue
        for x in keep.walk():
            if x.op in INT_OPS - {"min", "max"}:
                found |= x.inputs()
    return frozenset(found)


def _is_labels(kind: Kind) -> bool:
    return kind.sort == "input" and kind.holds == "token"


class BeyondInt32(ValueError):
    """A value does not fit the int32 in which backends evaluate."""

    def __init__(self, e: Expr) -> None:
        super().__init__(f"`{e}` does not fit int32")
        self.expression = e


class ZeroDivisor(ZeroDivisionError):
    """A divisor can be zero at some position."""

    def __init__(self, e: Expr) -> None:
        super().__init__(f"the right side of `{e}` can be zero")
        self.expression = e
        self.operator = "//" if e.op == "floordiv" else "%"


def check_ranges(e: Expr, env: Env) -> None:
    """Every value on the way to ``e`` fits int32 over the box, and no divisor can be zero there.

    Raises `BeyondInt32` and `ZeroDivisor`. Both sides of an ``if``, an ``and`` and an ``or`` are evaluated.
    Arithmetic with run-time inputs is checked for values within ±`INPUTS`, so that differences and small
    multiples of them pass; where larger ones are passed to such arithmetic, the call is refused.
    """
    for node, here in _scopes(e, env):
        if node.op in ("floordiv", "mod"):
            divisor = bounds(node.args[1], here, _input, EXACT)
            if divisor.lo <= 0 <= divisor.hi:
                raise ZeroDivisor(node)
        value = evaluate_all(node, here, _input, EXACT)[node]
        if isinstance(value, Interval) and not (value.lo >= -INT32 and value.hi < INT32):
            raise BeyondInt32(node)


def _input(node: Expr, position: Interval) -> Interval:
    if isinstance(node.value, Fact):
        return Interval(-1, node.value.pattern.largest(node.value.name))
    return Interval(-INPUTS, INPUTS)


def _scopes(e: Expr, env: Env) -> Iterator[tuple[Expr, Env]]:
    """Every subexpression, operands first, with the intervals of the variables in scope."""
    free = e.free()
    for node in e.walk():
        if free[node] <= env.keys():
            if node.op in ("forall", "exists"):
                yield from _scopes(node.args[2], _within(node, env))
            yield node, env
