"""Windows on the distance q − k: the patterns whose relations are plain arithmetic."""

from __future__ import annotations

import dataclasses

from patterndsl.ir.expr import as_expr
from patterndsl.ir.nodes import Node
from patterndsl.passes.base import constant


@dataclasses.dataclass(frozen=True)
class Window:
    """The pairs with q − left ≤ k ≤ q + right; a side of None is not bounded."""

    left: int | None
    right: int | None

    def __le__(self, other: Window) -> bool:
        """Contained in the other."""
        return _least(self.left, other.left) == self.left and _least(self.right, other.right) == self.right

    def __and__(self, other: Window) -> Window:
        return Window(_least(self.left, other.left), _least(self.right, other.right))

    def pattern(self) -> Node:
        """Its shortest pattern."""
        from patterndsl.patterns.local import Local

        match self.left, self.right:
            case None, None:
                return constant("full")
            case None, 0:
                return constant("causal")
            case 0, 0:
                return constant("self")
            case left, right if left is not None and left == right:
                return Local(as_expr(left + 1))
            case left, right:
                return Local(None, *(None if x is None else as_expr(x) for x in (left, right)))


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def window(p: Node) -> Window | None:
    """The window that the pattern is, if it is one and its size is a number."""
    from patterndsl.patterns.causal import Causal
    from patterndsl.patterns.full import Full
    from patterndsl.patterns.local import Local
    from patterndsl.patterns.self_ import Self

    match p:
        case Full():
            return Window(None, None)
        case Causal():
            return Window(None, 0)
        case Self():
            return Window(0, 0)
        case Local():
            sides = [None if x is None else x.number for x in (p.w, p.left, p.right)]
            given = [x is not None for x in (p.w, p.left, p.right)]
            if given != [x is not None for x in sides]:
                return None  # depends on n, or on a param without a value
            if sides[0] is not None:
                return Window(sides[0] - 1, sides[0] - 1)
            return Window(sides[1], sides[2])
    return None


def within(p: Node) -> Window:
    """A window that contains the pattern, as far as that is plain to see."""
    from patterndsl.ir.nodes import Intersection
    from patterndsl.patterns.dilated import Dilated

    exact = window(p)
    if exact is not None:
        return exact
    match p:
        case Dilated():
            size, dilation = p.window.number, p.dilation.number
            if size is not None and dilation is not None:
                return Window((size - 1) * dilation, (size - 1) * dilation)
        case Intersection(members):
            meet = Window(None, None)
            for m in members:
                meet &= within(m)
            return meet
    return Window(None, None)
