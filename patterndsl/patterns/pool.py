"""`pool` and `tglobal`: summaries of chunks of one length, which every query sees."""

from __future__ import annotations

from patterndsl.ir.expr import FALSE, TRUE, C, Expr, Unknown, any_of
from patterndsl.ir.nodes import Pattern
from patterndsl.ir.nodes import Pool as Summaries
from patterndsl.patterns.base import Flag, Reduce, Size, Weight, pattern


@pattern
class Pool(Pattern):
    """Summaries of chunks of `size` tokens, one every `stride` tokens (by default `size`: side by side; less,
    and they overlap). Chunk c stands for the tokens from c·stride on, and the last one for fewer where tokens
    run out before it is full; `whole=true` leaves that one out. `reduce` and `weight` are as in
    `hierarchical`. A query sees them all; `causal &` those that end at it or before."""

    name = "pool"
    growth = "n^2/stride"
    source = (
        "Yuan et al. 2025 (NSA, compression), arXiv:2502.11089; Zhang et al. 2021 (Poolingformer), "
        "arXiv:2105.04371"
    )
    examples = (
        "pool(4)",
        "pool(size=6, stride=3, whole=true)",
        'pool(5, 2, reduce="max", weight="one")',
    )

    size: Size
    stride: Size | None = None
    reduce: Reduce = "mean"
    weight: Weight = "count"
    whole: Flag = False

    @property
    def step(self) -> Expr:
        """The distance of one chunk from the next."""
        return self.size if self.stride is None else self.stride

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return FALSE

    def summaries(self, n: int | None) -> tuple[tuple[Summaries, Expr], ...]:
        if n is None:
            raise Unknown("which chunk of tokens is the last depends on n")
        size, step = min(int(self.size), n), int(self.step)
        if self.whole:
            if int(self.size) > n:
                return ()
            kept = C * step + size <= n
        else:
            kept = any_of(C.eq(0), (C - 1) * step + size < n)
        step = min(step, n)  # the first chunk is the only one
        return ((Summaries(size, step, self.reduce, self.weight), kept),)

    def pairs(self, n: Expr) -> Expr:
        return n * (n // self.step + 1)


@pattern
class TGlobal(Pattern):
    """Transient globals: the summaries of all full blocks of `block` tokens, seen by every query. Tokens
    after the last full block belong to it; where no block is full there is none."""

    name = "tglobal"
    growth = "n^2/block"
    source = "Guo et al. 2022 (LongT5), arXiv:2112.07916"
    examples = ("tglobal(4)", 'tglobal(block=3, weight="count")')

    block: Size
    reduce: Reduce = "mean"
    weight: Weight = "one"

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return FALSE

    def summaries(self, n: int | None) -> tuple[tuple[Summaries, Expr], ...]:
        if n is None:
            raise Unknown("how many tokens the last block has depends on n")
        block = int(self.block)
        blocks = n // block
        last = block + n % block
        if blocks == 0:
            return ()
        if n % block == 0:
            return ((Summaries(block, block, self.reduce, self.weight), TRUE),)
        if blocks == 1:
            return ((Summaries(n, n, self.reduce, self.weight), C.eq(0)),)
        others = Summaries(block, block, self.reduce, self.weight), blocks > C + 1
        return others, (Summaries(last, n - last, self.reduce, self.weight), C.eq(1))

    def pairs(self, n: Expr) -> Expr:
        return n * (n // self.block)
