"""`transpose`, `shift`, `blocks`: a token pattern, transformed."""

from __future__ import annotations

from patterndsl.ir.expr import Expr, all_of, maximum, minimum, quantify, where
from patterndsl.ir.nodes import Node, Pattern
from patterndsl.patterns.base import Number, Operand, Size, pattern

MOST_NESTED = 3
"""`blocks` within each other: the work at one pair multiplies by size² with each."""


class Transform(Pattern):
    """A pattern made from another one's expressions over ``q`` and ``k``: its predicate, or its counts."""

    p: Operand

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import without_choice

        without_choice(self, self.p)

    def apply(self, e: Expr, q: Expr, k: Expr, n: Expr) -> Expr:
        """The operand's expression ``e``, seen through the transform."""
        raise NotImplementedError(f"{type(self).__name__} transforms nothing")

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        from patterndsl.ir.normal import token_terms

        return self.apply(token_terms(self.p, n).keep, q, k, n)


def _guarded(inside: Expr, e: Expr) -> Expr:
    """``e`` where the pair that it reads exists, else nothing."""
    return inside & e if e.sort == "bool" else where(inside, e, 0)


@pattern
class Transpose(Transform):
    """Queries and keys change places: (q, k) is kept where p keeps (k, q)."""

    name = "transpose"
    growth = "as p"
    examples = ("transpose(columns([0]))", "transpose(local(left=2, right=0))")

    p: Operand

    def apply(self, e: Expr, q: Expr, k: Expr, n: Expr) -> Expr:
        return _guarded(all_of(q >= 0, q < n), e.subs({"q": k, "k": q, "n": n}))

    def pairs(self, n: Expr) -> Expr:
        return operand_pairs(self.p, n)


@pattern
class Shift(Transform):
    """p, moved `by` positions towards later keys: (q, k) is kept where p keeps (q, k − by). A key k − by
    outside the sequence is none."""

    name = "shift"
    growth = "as p"
    examples = ("shift(local(3), 4)", "shift(self, by=-2)")

    p: Operand
    by: Number

    def apply(self, e: Expr, q: Expr, k: Expr, n: Expr) -> Expr:
        source = k - self.by
        return _guarded(all_of(source >= 0, source < n), e.subs({"q": q, "k": source, "n": n}))

    def simplified(self) -> Node:
        return self.p if self.by.number == 0 else self

    def pairs(self, n: Expr) -> Expr:
        return operand_pairs(self.p, n)


@pattern
class Blocks(Transform):
    """p, coarsened: a block of `size` × `size` positions (0 … n − 1 on both sides) is kept whole if p keeps
    any pair in it. Counts are forgotten."""

    name = "blocks"
    growth = "up to size^2 times p"
    examples = ("blocks(local(3), size=4)", "blocks(logsparse, 8)")

    p: Operand
    size: Size

    def check(self, n: int | None) -> None:
        from patterndsl.patterns.checks import nested_at_most

        super().check(n)
        nested_at_most(self, MOST_NESTED)

    def simplified(self) -> Node:
        a, b = self.size.number, self.p.size.number if isinstance(self.p, Blocks) else None
        if a and b and (a % b == 0 or b % a == 0):  # one grid refines the other: the coarser says it all
            assert isinstance(self.p, Blocks)
            return Blocks(self.p.p, self.size if a >= b else self.p.size)
        return self

    def apply(self, e: Expr, q: Expr, k: Expr, n: Expr) -> Expr:
        kept = e if e.sort == "bool" else e > 0
        trips = int(self.size)

        def some(name: str, at: Expr, body: Expr) -> Expr:
            first = at // self.size * self.size
            return quantify("exists", name, maximum(first, 0), minimum(first + trips - 1, n - 1), body, trips)

        # Names of their own, so that the outer q and k of the block are not captured.
        inner = kept.subs({"n": n, "q": Expr("var", (), "q_"), "k": Expr("var", (), "k_")})
        return all_of(q >= 0, q < n, some("q_", q, some("k_", k, inner)))

    def pairs(self, n: Expr) -> Expr:
        return minimum(operand_pairs(self.p, n) * self.size * self.size, n * n)


def operand_pairs(p: object, n: Expr) -> Expr:
    """An upper bound on the pairs that the operand keeps."""
    from patterndsl.ir.normal import pairs_bound

    return pairs_bound(p, n)  # type: ignore[arg-type]
