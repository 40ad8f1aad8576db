"""Where a predicate can change as one variable moves: finitely many values, known as expressions.

``k <= q`` changes at q + 1, ``abs(q - k) < w`` at q − w + 1 and q + w, ``k // 4 == q // 4`` at the ends of a
block. Of a predicate made from such comparisons, one value out of each stretch between the changes tells all.
"""

from __future__ import annotations

from patterndsl.ir.expr import COMPARE_OPS, Expr, as_expr, var
from patterndsl.ir.linear import linear

MOST = 24


def changes(e: Expr, name: str) -> list[Expr] | None:
    """The values of the variable at which the predicate ``e`` may differ from its value just before, None
    where that cannot be told (or where they are more than `MOST`).
    """
    found: dict[Expr, None] = {}
    free = e.free()
    stack = [e]
    while stack:
        node = stack.pop()
        if name not in free[node]:
            continue
        if node.op in ("and", "or", "not"):
            stack.extend(node.args)
            continue
        here = _comparison(node, name) if node.op in COMPARE_OPS else None
        if here is None:
            return None
        found.update(dict.fromkeys(here))
        if len(found) > MOST:
            return None
    return list(found)


def _comparison(e: Expr, name: str) -> list[Expr] | None:
    """``a < b`` as ``±x ≤ v`` with x the one term that moves; then where x passes v."""
    split = _moving(e.args[0] - e.args[1], name)
    if split is None:
        return None
    x, sign, rest = split
    # sign·x + rest < 0, that is x ≤ v for a positive sign, and x > v for a negative one
    if e.op in ("eq", "ne"):
        at = -rest if sign > 0 else rest
        spans = _within(x, at, at, name)
    else:
        strict = e.op == "lt"
        v = -rest - int(strict) if sign > 0 else rest - int(not strict)
        spans = _within(x, None, v, name)
    if spans is None:
        return None
    ends = [a for a, _ in spans if a is not None] + [b + 1 for _, b in spans if b is not None]
    return ends


def _moving(e: Expr, name: str) -> tuple[Expr, int, Expr] | None:
    """``e`` as ``±x + rest``, only the atom x of which reads the variable."""
    form = linear(e)
    moving = [(atom, c) for atom, c in form.terms if name in atom.names()]
    if len(moving) != 1 or moving[0][1] not in (1, -1):
        return None
    rest = as_expr(form.constant)
    for atom, c in form.terms:
        if atom is not moving[0][0]:
            rest = rest + atom * c
    return moving[0][0], moving[0][1], rest


Span = tuple[Expr | None, Expr | None]


def _within(x: Expr, low: Expr | None, high: Expr | None, name: str) -> list[Span] | None:
    """The values of the variable for which low ≤ x ≤ high (None: no bound), as spans; x moves by at most one
    when the variable does. Spans may be empty or overlap: what matters is that x enters and leaves only at
    their ends.
    """
    if x is var(name):
        return [(low, high)]
    if x.op == "floordiv" and (x.args[1].number or 0) > 0:
        d = x.args[1]
        above = None if high is None else high * d + (d - 1)
        return _sum_within(x.args[0], None if low is None else low * d, above, name)
    if x.op == "abs":
        inner: list[Span] = []
        bands = (
            [(None if high is None else -high, high)] if low is None else [(low, high), _mirrored(low, high)]
        )
        for a, b in bands:
            spans = _sum_within(x.args[0], a, b, name)
            if spans is None:
                return None
            inner += spans
        return inner
    return None


def _mirrored(low: Expr | None, high: Expr | None) -> Span:
    return (None if high is None else -high, None if low is None else -low)


def _sum_within(e: Expr, low: Expr | None, high: Expr | None, name: str) -> list[Span] | None:
    split = _moving(e, name)
    if split is None:
        return None
    x, sign, rest = split
    low, high = (None if b is None else b - rest for b in (low, high))
    return _within(x, *((low, high) if sign > 0 else _mirrored(low, high)), name)
