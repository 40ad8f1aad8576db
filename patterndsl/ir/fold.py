"""Folding: the smart constructor behind `Expr`'s operators.

Folds constants and the neutral and absorbing elements; flattens ``and``/``or``; never reorders what a reader
wrote. Rewrites that need more than one look belong to the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patterndsl.ir.expr import Expr, evaluate_number

CONSTANT: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "neg": lambda a: -a,
    "abs": abs,
    "min": min,
    "max": max,
    "xor": lambda a, b: a ^ b,
    "popcount": lambda a: int(a).bit_count(),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "not": lambda a: not a,
    "if": lambda c, a, b: a if c else b,
    "and": lambda *a: all(a),
    "or": lambda *a: any(a),
}
FOLDABLE = frozenset(CONSTANT) | {"div", "pow", "sqrt", "log2", "ceil", "floor"}


def _const(x: int | bool) -> Expr:
    return Expr("bool", (), x) if isinstance(x, bool) else Expr("const", (), x)


def fold(op: str, args: tuple[Expr, ...], value: object) -> Expr:
    """``op(*args)``, simplified where that is plain to see."""
    if op in FOLDABLE and args and all(a.op in ("const", "bool") for a in args):
        try:
            result = evaluate_number(Expr(op, args, value), {})
        except (ZeroDivisionError, ValueError, OverflowError):
            return Expr(op, args, value)  # reported where the expression meets its source span
        if isinstance(result, (bool, int)):
            return _const(result)
        return Expr(op, args, value)  # not whole: kept exact, as it was written
    rule = _RULES.get(op)
    simpler = rule(args) if rule else None
    return Expr(op, args, value) if simpler is None else simpler


def _is(e: Expr, number: int) -> bool:
    return e.op == "const" and e.value == number


def _add(a: tuple[Expr, ...]) -> Expr | None:
    return a[1] if _is(a[0], 0) else a[0] if _is(a[1], 0) else None


def _sub(a: tuple[Expr, ...]) -> Expr | None:
    return a[0] if _is(a[1], 0) else _const(0) if a[0] is a[1] else None


def _mul(a: tuple[Expr, ...]) -> Expr | None:
    if _is(a[0], 0) or _is(a[1], 0):
        return _const(0)
    return a[1] if _is(a[0], 1) else a[0] if _is(a[1], 1) else None


def _floordiv(a: tuple[Expr, ...]) -> Expr | None:
    return a[0] if _is(a[1], 1) and a[0].sort == "int" else None


def _mod(a: tuple[Expr, ...]) -> Expr | None:
    return _const(0) if (_is(a[1], 1) or _is(a[1], -1)) and a[0].sort == "int" else None


def _same(truth: bool) -> Callable[[tuple[Expr, ...]], Expr | None]:
    return lambda a: _const(truth) if a[0] is a[1] else None


def _idempotent(a: tuple[Expr, ...]) -> Expr | None:
    return a[0] if a[0] is a[1] else None


def _junction(op: str, neutral: bool) -> Callable[[tuple[Expr, ...]], Expr | None]:
    def rule(args: tuple[Expr, ...]) -> Expr:
        parts: dict[Expr, None] = {}
        for a in args:
            for part in a.args if a.op == op else (a,):
                if part.op == "bool":
                    if part.value is not neutral:
                        return part
                elif _negation(part) in parts:
                    return _const(not neutral)
                else:
                    parts[part] = None
        if len(parts) == 1:
            return next(iter(parts))
        return Expr(op, tuple(parts)) if parts else _const(neutral)

    return rule


def _negation(e: Expr) -> Expr:
    if e.op == "not":
        return e.args[0]
    if e.op in _OPPOSITE:
        op, swap = _OPPOSITE[e.op]
        return Expr(op, e.args[::-1] if swap else e.args)
    return Expr("not", (e,))


_OPPOSITE = {"lt": ("le", True), "le": ("lt", True), "eq": ("ne", False), "ne": ("eq", False)}


def _not(a: tuple[Expr, ...]) -> Expr | None:
    return _negation(a[0]) if a[0].op == "not" or a[0].op in _OPPOSITE else None


def _if(a: tuple[Expr, ...]) -> Expr | None:
    if a[0].op == "bool":
        return a[1] if a[0].value else a[2]
    return a[1] if a[1] is a[2] else None


def _round(a: tuple[Expr, ...]) -> Expr | None:
    return a[0] if a[0].sort == "int" else None


_RULES: dict[str, Callable[[tuple[Expr, ...]], Expr | None]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "floordiv": _floordiv,
    "mod": _mod,
    "min": _idempotent,
    "max": _idempotent,
    "lt": _same(False),
    "le": _same(True),
    "eq": _same(True),
    "ne": _same(False),
    "and": _junction("and", True),
    "or": _junction("or", False),
    "not": _not,
    "if": _if,
    "ceil": _round,
    "floor": _round,
}
