"""`chunked`, `segment_memory` and `segments`: blocks of the sequence."""

from __future__ import annotations

from patterndsl.ir.expr import Expr, all_of
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Count, Size, pattern
from patterndsl.plan.orders import Order, Residues


@pattern
class Chunked(Pattern):
    """The query's own chunk of `size` tokens, `back` chunks before it and `ahead` after it."""

    name = "chunked"
    growth = "n·size"
    source = "Llama 4 (chunked attention); Kitaev et al. 2020 (Reformer, local), arXiv:2001.04451"
    examples = ("chunked(8)", "chunked(8, back=1)", "chunked(4, back=1, ahead=1)")

    size: Size
    back: Count = Expr("const", (), 0)
    ahead: Count = Expr("const", (), 0)

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        behind = q // self.size - k // self.size
        return all_of(-self.ahead <= behind, behind <= self.back)

    def simplified(self) -> Node:
        from patterndsl.patterns.local import Local

        return Local(None, self.back, self.ahead) if self.size.number == 1 else self

    def pairs(self, n: Expr) -> Expr:
        return n * self.size * (self.back + self.ahead + 1)


@pattern
class SegmentMemory(Pattern):
    """The query's own segment of `segment` tokens, and the `memory` tokens before it."""

    name = "segment_memory"
    growth = "n·(segment + memory)"
    source = "Dai et al. 2019 (Transformer-XL), arXiv:1901.02860"
    examples = ("segment_memory(8, 12)", "causal & segment_memory(segment=6, memory=3)")

    segment: Size
    memory: Count

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        start = q // self.segment * self.segment
        return all_of(start - self.memory <= k, k < start + self.segment)

    def pairs(self, n: Expr) -> Expr:
        return n * (self.segment + self.memory)


@pattern
class Segments(Pattern):
    """One branch of LongNet: within a segment of `size` tokens, the positions ≡ `offset` (mod `dilation`) see
    each other. Other queries keep nothing."""

    name = "segments"
    growth = "n·size/dilation"
    source = "Ding et al. 2023 (LongNet), arXiv:2307.02486"
    examples = ("segments(8, 2)", "segments(16, 4, offset=1)")

    size: Size
    dilation: Size
    offset: Count = Expr("const", (), 0)

    def layouts(self, n: int) -> tuple[Order, ...]:
        size, dilation = int(self.size), int(self.dilation)
        return (Residues(dilation, within=size),) if 1 < dilation < min(size, n) else ()

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        here = self.offset % self.dilation
        return all_of(
            (q // self.size).eq(k // self.size),
            (q % self.size % self.dilation).eq(here),
            (k % self.size % self.dilation).eq(here),
        )

    def simplified(self) -> Node:
        return Chunked(self.size) if self.dilation.number == 1 else self

    def pairs(self, n: Expr) -> Expr:
        return n * (self.size // self.dilation + 1)
