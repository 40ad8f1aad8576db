"""`strided` and `fixed`: the Sparse Transformer's two."""

from __future__ import annotations

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Size, pattern
from patterndsl.plan.orders import Columns, Order, Residues


@pattern
class Strided(Pattern):
    """Keys at a multiple of s from the query: (q − k) divisible by s."""

    name = "strided"
    growth = "n^2/s"
    source = "Child et al. 2019 (Sparse Transformer), arXiv:1904.10509"
    examples = ("strided(4)", "strided(ceil(sqrt(n)))")

    s: Size

    def layouts(self, n: int) -> tuple[Order, ...]:
        return (Residues(int(self.s)),) if 1 < int(self.s) < n else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return ((q - k) % self.s).eq(0)

    def simplified(self) -> Node:
        from patterndsl.patterns.full import Full

        return Full() if self.s.number == 1 else self

    def pairs(self, n: Expr) -> Expr:
        return n * (n // self.s + 1)


@pattern
class Fixed(Pattern):
    """The query's own block, and the last `summary` keys of every block."""

    name = "fixed"
    growth = "n·(block + n·summary/block)"
    source = "Child et al. 2019 (Sparse Transformer, fixed), arXiv:1904.10509"
    examples = ("fixed(block=8, summary=2)",)

    block: Size
    summary: Size

    def layouts(self, n: int) -> tuple[Order, ...]:
        block, summary = int(self.block), min(int(self.summary), int(self.block))
        return (Columns(block, unit=summary, shift=-block % summary),) if summary < block < n else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return (q // self.block).eq(k // self.block) | (k % self.block >= self.block - self.summary)

    def pairs(self, n: Expr) -> Expr:
        return n * (self.block + (n // self.block + 1) * self.summary)
