"""`logsparse`: O(log n) keys a query."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated

from patterndsl.ir.expr import Expr, all_of, as_expr, build, member
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Count, Kind, Size, even_cuts, pattern
from patterndsl.plan.orders import Order, Residues

REACH = 2**31  # no position is further apart
FAR = 16  # steps to the furthest key of a member: tiles of so many queries meet no more than their neighbours


@pattern
class LogSparse(Pattern):
    """Keys at distance 0 or a power of `base`, on both sides (add `causal` for the published one)."""

    name = "logsparse"
    growth = "n·log n"
    source = "Li et al. 2019 (LogSparse Transformer), arXiv:1907.00235"
    examples = ("logsparse", "logsparse(base=3)")

    base: Annotated[Expr, Kind("number", 2)] = Expr("const", (), 2)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return member(abs(q - k), [0, *_powers(int(self.base), REACH)])

    def members(self, n: int) -> tuple[Node, ...]:
        """Groups of consecutive powers, the largest `FAR` times the least at most."""
        base = int(self.base)
        most, count = len(_powers(base, FAR + 1)), len(_powers(base, n))
        if most < 2 or count <= most:  # keys so far apart fill no tile better than one power alone
            return (self,)
        cuts = [*even_cuts(count, most)[:-1], len(_powers(base, REACH))]  # queries may stand past the keys
        return tuple(
            LogSparsePowers(self.base, as_expr(first), as_expr(end - 1))
            for first, end in itertools.pairwise(cuts)
        )

    def pairs(self, n: Expr) -> Expr:
        return n * (2 * build("ceil", build("log2", n)) + 3)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LogSparsePowers(Pattern):
    """The keys of `logsparse` at distances base^first … base^last, and at 0 if ``first`` is 0.

    They are a whole number of base^first positions away: seen in such steps, they are near.
    """

    name = "logsparse_powers"

    base: Size
    first: Count
    last: Count

    def layouts(self, n: int) -> tuple[Order, ...]:
        step = int(self.base) ** int(self.first)
        return (Residues(step),) if 1 < step < n else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        base, first, last = int(self.base), int(self.first), int(self.last)
        powers = [base**i for i in range(first, last + 1)]
        if first == 0:
            return member(abs(q - k), [0, *powers])
        # The first of the two follows from the other; it is what an order by residues makes known of tiles.
        return all_of((q % powers[0]).eq(k % powers[0]), member(abs(q - k), powers))


def _powers(base: int, limit: int) -> list[int]:
    """1, base, base² … below ``limit``."""
    powers = [1]
    while powers[-1] * base < limit:
        powers.append(powers[-1] * base)
    return powers
