"""`local`."""

from __future__ import annotations

from patterndsl.ir.expr import Expr, all_of
from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import Count, Size, pattern


@pattern
class Local(Pattern):
    """A sliding window. `local(w)` keeps abs(q − k) < w: under `causal` exactly w keys, the query itself
    among them. `local(left=L, right=R)` keeps q − L ≤ k ≤ q + R, both ends included (JAX's
    `local_window_size`); a side that is left out is not bounded."""

    name = "local"
    growth = "n·w"
    source = (
        "Beltagy et al. 2020 (Longformer), arXiv:2004.05150; Jiang et al. 2023 (Mistral), arXiv:2310.06825"
    )
    examples = ("local(4)", "local(left=3, right=1)", "local(right=0)")

    w: Size | None = None
    left: Count | None = None
    right: Count | None = None

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import one_of

        one_of(self, ("w",), ("left", "right"))

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        if self.w is not None:
            return abs(q - k) < self.w
        tests = []
        if self.left is not None:
            tests.append(q - k <= self.left)
        if self.right is not None:
            tests.append(k - q <= self.right)
        return all_of(*tests)

    def pairs(self, n: Expr) -> Expr:
        if self.w is not None:
            return n * (2 * self.w - 1)
        if self.left is None or self.right is None:
            return n * n
        return n * (self.left + self.right + 1)
