"""`self`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import pattern


@pattern
class Self(Pattern):
    """Every query sees the key at its own position."""

    name = "self"
    growth = "n"
    examples = ("self",)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return q.eq(k)

    def pairs(self, n: Expr) -> Expr:
        return n
