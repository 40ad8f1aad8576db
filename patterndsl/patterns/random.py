"""`random`: key blocks drawn by a hash."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from patterndsl.ir.expr import Expr, all_of, build
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import Number, Size, pattern
from patterndsl.plan.orders import Gathered, Order

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from patterndsl.ir.table import Table

LIMIT = 2**30  # bytes of a table and of what is made from it: some million blocks, drawn in seconds
FEW = 32  # blocks of a row, up to which each is compared with those drawn before
HELD = 2**27  # bytes in which to note what is drawn, at a time


@pattern
class Random(Pattern):
    """For each block of queries, `blocks` distinct key blocks (all, where there are no more), drawn by a
    counter-based hash of (seed, block row): the same on every platform and for every number of queries."""

    name = "random"
    growth = "n·blocks·block"
    source = "Zaheer et al. 2020 (BigBird), arXiv:2007.14062"
    examples = ("random(2, block=8, seed=1)",)

    blocks: Size
    block: Size = Expr("const", (), 64)
    seed: Number = Expr("const", (), 0)

    def check(self, n: int | None) -> None:
        if n is None or self.block.number is None or self.blocks.number is None:
            return
        from patterndsl.diagnostics import PlanTooLarge, SpecError

        count = -(-n // self.block.number)
        each = 24 + 8 * count.bit_length()  # while drawn and sorted; and in each level of `Table.pyramid`
        needed = each * self.entries(n)
        if needed > LIMIT:
            raise SpecError(PlanTooLarge(what="the table of random blocks", needed=needed, limit=LIMIT))

    def layouts(self, n: int) -> tuple[Order, ...]:
        return (Gathered(),)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        count = -(-int(n) // int(self.block))
        if int(self.blocks) >= count:
            return all_of(q >= 0, q < count * self.block, k >= 0, k < count * self.block)
        table = draw(int(self.seed), count, int(self.blocks))
        return build("lookup", q // self.block, k // self.block, value=table)

    def entries(self, n: int) -> int:
        """Entries of its table at n."""
        count = -(-n // int(self.block))
        return count * int(self.blocks) if int(self.blocks) < count else 0

    def pairs(self, n: Expr) -> Expr:
        return n * self.blocks * self.block


@functools.lru_cache(maxsize=32)
def draw(seed: int, count: int, blocks: int) -> Table:
    """For each of ``count`` rows, ``blocks`` < ``count`` distinct columns of ``count``: Floyd's sampling
    (Bentley and Floyd 1987) with the hash as its source of numbers."""
    import numpy as np

    from patterndsl.ir.table import Table

    chosen = np.empty((count, blocks), np.int32)
    if blocks <= FEW:
        rows = np.arange(count, dtype=np.uint64)
        for i, last in enumerate(range(count - blocks, count)):
            drawn = (_hash(seed, rows, last) % np.uint64(last + 1)).astype(np.int32)
            taken = np.any(chosen[:, :i] == drawn[:, None], axis=1)
            chosen[:, i] = np.where(taken, np.int32(last), drawn)
        return Table(np.sort(chosen, axis=1), count)
    for first in range(0, count, max(1, HELD // count)):
        rows = np.arange(first, min(first + max(1, HELD // count), count), dtype=np.uint64)
        here, seen = np.arange(len(rows)), np.zeros((len(rows), count), np.bool_)
        for i, last in enumerate(range(count - blocks, count)):
            drawn = (_hash(seed, rows, last) % np.uint64(last + 1)).astype(np.int32)
            drawn = np.where(seen[here, drawn], np.int32(last), drawn)
            seen[here, drawn] = True
            chosen[first : first + len(rows), i] = drawn
    return Table(np.sort(chosen, axis=1), count)


def _hash(seed: int, row: npt.NDArray[np.uint64], step: int) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer over (seed, row, step) (Steele, Lea and Flood 2014)."""
    import numpy as np

    x = _mix(np.uint64(seed % 2**64) + np.zeros_like(row))
    x = _mix(x + row)
    return _mix(x + np.uint64(step))


def uniform(seed: int, count: int, step: int) -> npt.NDArray[np.float64]:
    """``count`` numbers in 0 … 1, both left out: those of a step of a seed."""
    import numpy as np

    drawn = _hash(seed, np.arange(count, dtype=np.uint64), step) >> np.uint64(11)
    return (drawn.astype(np.float64) + 0.5) / 2.0**53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    import numpy as np

    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
