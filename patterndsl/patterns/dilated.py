"""`dilated`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Size, pattern
from patterndsl.plan.orders import Order, Residues


@pattern
class Dilated(Pattern):
    """A sliding window of every `dilation`-th key: abs(q − k) < window·dilation and (q − k) divisible by it,
    which under `causal` is exactly `window` keys."""

    name = "dilated"
    growth = "n·w"
    source = "Beltagy et al. 2020 (Longformer), arXiv:2004.05150"
    examples = ("dilated(window=3, dilation=4)",)

    window: Size
    dilation: Size

    def layouts(self, n: int) -> tuple[Order, ...]:
        return (Residues(int(self.dilation)),) if 1 < int(self.dilation) < n else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return (abs(q - k) < self.window * self.dilation) & ((q - k) % self.dilation).eq(0)

    def simplified(self) -> Node:
        from patterndsl.patterns.local import Local
        from patterndsl.patterns.self_ import Self

        if self.window.number == 1:
            return Self()
        return Local(self.window) if self.dilation.number == 1 else self

    def pairs(self, n: Expr) -> Expr:
        return n * (2 * self.window - 1)
