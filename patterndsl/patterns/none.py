"""`none`."""

from __future__ import annotations

from patterndsl.ir.expr import FALSE, Expr, as_expr
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import pattern


@pattern
class Empty(Pattern):
    """No query sees any key; the neutral member of a union."""

    name = "none"
    growth = "0"
    examples = ("none",)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return FALSE

    def pairs(self, n: Expr) -> Expr:
        return as_expr(0)
