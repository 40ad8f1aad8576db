"""`logsparse` and `butterfly`: O(log n) keys a query."""

from __future__ import annotations

from typing import Annotated

from patterndsl.ir.expr import Expr, all_of, build, maximum, member, popcount, xor
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import Kind, Size, pattern

REACH = 2**31  # no position is further apart


@pattern
class LogSparse(Pattern):
    """Keys at distance 0 or a power of `base`, on both sides (add `causal` for the published one)."""

    name = "logsparse"
    growth = "n·log n"
    source = "Li et al. 2019 (LogSparse Transformer), arXiv:1907.00235"
    examples = ("logsparse", "logsparse(base=3)")

    base: Annotated[Expr, Kind("number", 2)] = Expr("const", (), 2)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        base, powers = int(self.base), [1]
        while powers[-1] * base < REACH:
            powers.append(powers[-1] * base)
        return member(abs(q - k), [0, *powers])

    def pairs(self, n: Expr) -> Expr:
        return n * (2 * build("ceil", build("log2", n)) + 3)


@pattern
class Butterfly(Pattern):
    """Blocks whose numbers are equal or differ in exactly one binary digit."""

    name = "butterfly"
    growth = "n·log n"
    source = "Dao et al. 2022 (Pixelated Butterfly), arXiv:2112.00029"
    examples = ("butterfly", "butterfly(block=4)")

    block: Size = Expr("const", (), 1)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return all_of(q >= 0, popcount(xor(maximum(q, 0) // self.block, k // self.block)) <= 1)

    def pairs(self, n: Expr) -> Expr:
        return n * self.block * (build("ceil", build("log2", n)) + 2)
