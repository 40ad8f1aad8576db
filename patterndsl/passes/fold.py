"""Constant folding of arguments and predicates."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.ir.expr import Expr, as_expr, build, evaluate_number
from patterndsl.ir.nodes import Module
from patterndsl.passes.base import Pass, rewrite


@dataclasses.dataclass(frozen=True)
class Fold(Pass):
    """Numbers that are known are evaluated, and constants of a sum are collected.

    ``local(ceil(sqrt(10)))`` -> ``local(4)``; ``local(w + 1 - 1)`` -> ``local(w)``
    """

    name: ClassVar[str] = "fold"

    def apply(self, module: Module) -> Module:
        done: dict[Expr, Expr] = {}

        def number(e: Expr) -> Expr:
            for x in e.walk():
                if x not in done:
                    done[x] = _fold(build(x.op, *(done[a] for a in x.args), value=x.value))
            return done[e]

        folded = rewrite(module, lambda p: p, number)
        return dataclasses.replace(folded, params={name: number(e) for name, e in module.params.items()})


def _fold(e: Expr) -> Expr:
    if e.op in ("ceil", "floor") and not e.names() and not e.inputs():
        try:
            return as_expr(int(evaluate_number(e, {})))
        except (ArithmeticError, ValueError):
            return e  # has no value: reported where the argument meets its span
    base, offset = _split(e)
    return e if base is None else base + offset if offset >= 0 else base - -offset


def _split(e: Expr) -> tuple[Expr | None, int]:
    """``x + 1 - 3`` as x and −2, where a sum has two constants; else None."""
    base, offset, terms = e, 0, 0
    while base.op in ("add", "sub"):
        left, right = base.args
        if right.number is not None:
            offset += right.number if base.op == "add" else -right.number
            base = left
        elif left.number is not None and base.op == "add":
            offset += left.number
            base = right
        else:
            break
        terms += 1
    return (base, offset) if terms > 1 else (None, 0)
