"""`butterfly`: blocks whose numbers differ in one binary digit."""

from __future__ import annotations

import dataclasses
import itertools

from patterndsl.ir.expr import Expr, all_of, as_expr, build, maximum, popcount, xor
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Count, Size, even_cuts, pattern
from patterndsl.plan.orders import Order, Residues

DIGITS = 31  # of a position
TILE = 32  # positions of a member's dense tiles, at most
LEAST = 3  # digits of a member: of fewer, a tile of keys for each digit is as dense


@pattern
class Butterfly(Pattern):
    """Blocks whose numbers are equal or differ in exactly one binary digit."""

    name = "butterfly"
    growth = "n·log n"
    source = "Dao et al. 2022 (Pixelated Butterfly), arXiv:2112.00029"
    examples = ("butterfly", "butterfly(block=4)")

    block: Size = Expr("const", (), 1)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return all_of(q >= 0, popcount(_differing(q, k, self.block)) <= 1)

    def members(self, n: int) -> tuple[Node, ...]:
        """Groups of consecutive digits, in each of which 2^digits blocks are `TILE` positions at most."""
        block = int(self.block)
        most = (TILE // block).bit_length() - 1
        digits = (-(-n // block) - 1).bit_length()
        if most < LEAST or digits <= most:
            return (self,)
        cuts = [*even_cuts(digits, most)[:-1], DIGITS]  # queries may stand past the keys
        return tuple(
            ButterflyDigits(self.block, as_expr(first), as_expr(end - 1))
            for first, end in itertools.pairwise(cuts)
        )

    def pairs(self, n: Expr) -> Expr:
        return n * self.block * (build("ceil", build("log2", n)) + 2)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ButterflyDigits(Pattern):
    """The blocks of `butterfly` whose numbers differ in one of the binary digits first … last, and those that
    are equal if ``first`` is 0.

    Where only these digits change from block to block, all blocks that differ in nothing else lie together.
    """

    name = "butterfly_digits"

    block: Size
    first: Count
    last: Count

    def layouts(self, n: int) -> tuple[Order, ...]:
        block, low, high = (int(x) for x in (self.block, self.first, self.last))
        if low == 0:
            return ()
        within = block << (high + 1)
        return (Residues(block << low, within if within < n else None, unit=block),)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        block, low, high = self.block, int(self.first), int(self.last)
        differing, least, most = _differing(q, k, block), 1 << low, 1 << high
        tests = [q >= 0, popcount(differing) <= 1]
        # That other digits are the same follows from the rest; it is what the order makes known of tiles.
        if high < DIGITS - 1:
            tests += [differing <= most, (q // (block * (2 * most))).eq(k // (block * (2 * most)))]
        if low > 0:
            tests += [differing >= least, (q // block % least).eq(k // block % least)]
        return all_of(*tests)


def _differing(q: Expr, k: Expr, block: Expr) -> Expr:
    """The binary digits in which the blocks of q and k differ."""
    return xor(maximum(q, 0) // block, k // block)
