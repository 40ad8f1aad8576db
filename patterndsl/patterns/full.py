"""`full`."""

from __future__ import annotations

from patterndsl.ir.expr import TRUE, Expr
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import pattern


@pattern
class Full(Pattern):
    """Every query sees every key."""

    name = "full"
    growth = "n^2"
    examples = ("full",)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return TRUE

    def pairs(self, n: Expr) -> Expr:
        return n * n
