"""`same`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr, read
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import InputName, pattern


@pattern
class Same(Pattern):
    """Keys whose run-time label equals the query's: doc[q] = doc[k] (packed documents)."""

    name = "same"
    growth = "by data"
    source = "Packed sequences; Krell et al. 2021, arXiv:2107.02027"
    examples = ("same(doc)",)

    input: InputName

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return read(self.input, q).eq(read(self.input, k))

    def pairs(self, n: Expr) -> Expr:
        return n * n
