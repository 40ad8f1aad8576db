"""`causal`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import pattern


@pattern
class Causal(Pattern):
    """A query sees the keys up to its own position: k ≤ q."""

    name = "causal"
    growth = "n^2"
    source = "Vaswani et al. 2017, arXiv:1706.03762"
    examples = ("causal",)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return k <= q

    def pairs(self, n: Expr) -> Expr:
        return n * n
