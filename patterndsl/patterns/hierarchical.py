"""`hierarchical`, `tree` and `recursive`: summaries of chunks, level by level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from patterndsl.ir.expr import C, Expr, Q, Unknown, all_of, build, maximum
from patterndsl.ir.nodes import Node, Pattern, Pool
from patterndsl.patterns.base import Count, Kind, Of, Reduce, Size, Weight, pattern

REACH = 2**31 - 1  # positions are no larger, unless n is
MAX_LEVELS = 64  # factor ≥ 2: enough for 2^64 tokens


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """The levels of chunks of leaf·factor^(l−1) tokens, and what is near at each."""

    factor: int
    window: int
    leaf: int
    levels: int | None
    reduce: str | Callable[..., Any]
    weight: str
    of: str

    def chunk(self, level: int, n: int | None = None) -> int:
        """Tokens in a chunk of the level; where n is known, no more than any position, so that numbers stay
        in the range of positions."""
        size = int(self.leaf * self.factor ** (level - 1))
        return size if n is None else min(size, max(REACH, 4 * n))

    def top(self, n: int | None) -> int:
        """The highest level: the smallest l ≥ 1 with chunk(l + 1) ≥ n, unless given."""
        if self.levels is not None:
            return min(self.levels, MAX_LEVELS)
        if n is None:
            raise Unknown("the number of levels of summaries depends on n")
        level = 1
        while self.chunk(level + 1) < n:
            level += 1
        return level

    def near(self, level: int, q: Expr, chunk: Expr, n: int | None) -> Expr:
        """The chunk of the level is at most ``window`` chunks from the query's."""
        return abs(chunk - q // self.chunk(level, n)) <= self.window

    def summaries(self, n: int | None) -> tuple[tuple[Pool, Expr], ...]:
        """At each level, the chunks that are not near though their parent is."""
        top, found = self.top(n), []
        below: Pool | None = None
        for level in range(1, top + 1):
            size = self.chunk(level) if n is None else min(self.chunk(level), n)  # one chunk is all n tokens
            far = ~self.near(level, Q, C, n)
            if level < top:
                factor = self.factor if n is None else min(self.factor, max(REACH, 4 * n))
                far = all_of(far, self.near(level + 1, Q, C // factor, n))
            fan = 1 if below is None else self.factor if n is None else min(self.factor, n)
            pool = Pool(size, size, self.reduce, self.weight, level, below, fan)
            below = pool if self.of == "summaries" else None
            found.append((pool, far))
        return tuple(found)

    def pairs(self, n: Expr) -> Expr:
        """An upper bound on the slots kept."""
        reach = 2 * self.window + 1
        if self.levels is None:
            return n * reach * (self.leaf + self.factor * build("ceil", build("log2", maximum(n, 2))))
        top = min(self.levels, MAX_LEVELS)
        return n * (reach * (self.leaf + self.factor * top) + n // self.chunk(top))


class Levels(Pattern):
    """What a pyramid keeps: tokens that are near, and far ones under summaries, level by level."""

    @property
    def _pyramid(self) -> Pyramid:
        raise NotImplementedError

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        pyramid = self._pyramid
        return pyramid.near(1, q, k // pyramid.chunk(1, n.number), n.number)

    def summaries(self, n: int | None) -> tuple[tuple[Pool, Expr], ...]:
        return self._pyramid.summaries(n)

    def pairs(self, n: Expr) -> Expr:
        return self._pyramid.pairs(n)


@pattern
class Hierarchical(Levels):
    """The near/far split of the fast multipole method. Level l ≥ 1 groups tokens into chunks of
    leaf·factor^(l−1). A query sees at level l the summaries of the chunks that are not near it (chunk
    distance > `window`) but whose parent is near; at level 0 the tokens whose chunk is near; at the top level
    every chunk not near. So each token is represented exactly once, by itself or by one summary. `reduce`
    (mean, max, first, last) makes a summary's key and value; `weight="count"` adds log(tokens in the chunk)
    to its logit, `weight="one"` nothing. `levels=auto` is as many as n needs. `of="summaries"` makes the
    summaries above level 1 of the `factor` summaries below instead of the tokens: where chunks are not full,
    their mean is another, and a pooling of one's own (in Python `reduce` is also a function) then costs a
    level as many vectors as the one below has chunks, not n."""

    name = "hierarchical"
    growth = "n·log n"
    source = (
        "Kang et al. 2023 (Fast Multipole Attention), arXiv:2310.11960; "
        "Zhu and Soricut 2021, arXiv:2107.11906"
    )
    examples = (
        "hierarchical(factor=4)",
        "hierarchical(2, window=2, leaf=4)",
        'hierarchical(3, levels=2, reduce="max", weight="one")',
    )

    factor: Annotated[Expr, Kind("number", 2)]
    window: Count = Expr("const", (), 1)
    leaf: Size | None = None
    levels: Size | None = None
    reduce: Reduce = "mean"
    weight: Weight = "count"
    of: Of = "tokens"

    @property
    def _pyramid(self) -> Pyramid:
        factor = int(self.factor)
        leaf = int(self.leaf) if self.leaf is not None else factor
        levels = int(self.levels) if self.levels is not None else None
        return Pyramid(factor, int(self.window), leaf, levels, self.reduce, self.weight, self.of)


@pattern
class Tree(Levels):
    """The siblings of each ancestor, `hierarchical(branching, window=0)`: the tokens of the query's own
    chunk, and above it, level by level, the summaries of the other chunks of its parent. `reduce`, `weight`
    and `of` are as in `hierarchical`."""

    name = "tree"
    growth = "n·log n"
    source = "The hierarchically off-diagonal (HODLR) structure; Ambikasaran and Darve 2013, arXiv:1403.5337"
    examples = ("tree(2)", 'tree(branching=4, reduce="max", weight="one")')

    branching: Annotated[Expr, Kind("number", 2)]
    reduce: Reduce = "mean"
    weight: Weight = "count"
    of: Of = "tokens"

    @property
    def _pyramid(self) -> Pyramid:
        branching = int(self.branching)
        return Pyramid(branching, 0, branching, None, self.reduce, self.weight, self.of)

    def simplified(self) -> Node:
        own = Expr("const", (), 0)
        return Hierarchical(self.branching, own, reduce=self.reduce, weight=self.weight, of=self.of)


@pattern
class Recursive(Levels):
    """Divide and conquer, `hierarchical(branch, window=0, leaf=base)`: tokens see each other in blocks of
    `base`; then, level by level as a merge sort goes, `branch` neighbouring blocks become one, and each of
    them sees the summaries of the others. `tree(b)` is `recursive(base=b, branch=b)`. `reduce`, `weight` and
    `of` are as in `hierarchical`."""

    name = "recursive"
    growth = "n·(base + log n)"
    source = "The hierarchically off-diagonal (HODLR) structure; Ambikasaran and Darve 2013, arXiv:1403.5337"
    examples = ("recursive(4)", 'recursive(base=6, branch=3, reduce="last", of="summaries")')

    base: Size
    branch: Annotated[Expr, Kind("number", 2)] = Expr("const", (), 2)
    reduce: Reduce = "mean"
    weight: Weight = "count"
    of: Of = "tokens"

    @property
    def _pyramid(self) -> Pyramid:
        return Pyramid(int(self.branch), 0, int(self.base), None, self.reduce, self.weight, self.of)

    def simplified(self) -> Node:
        own = Expr("const", (), 0)
        return Hierarchical(self.branch, own, self.base, None, self.reduce, self.weight, self.of)
