"""What a pass is, and what its rules may rely on.

A pass keeps the meaning of a module exactly: for every n, every query position (also before the first and
after the last key), every slot's count, summaries included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import (
    Call,
    Cases,
    Complement,
    Difference,
    Function,
    Intersection,
    Mix,
    Module,
    Node,
    Pattern,
    Sum,
    SymmetricDifference,
    Union,
    Where,
)


@dataclasses.dataclass(frozen=True)
class Pass:
    """One rewrite of a module. Subclasses name themselves, say ``before -> after`` in their docstring, and
    have their options as fields."""

    name: ClassVar[str] = ""

    def apply(self, module: Module) -> Module:
        """The module, rewritten."""
        raise NotImplementedError(f"{type(self).__name__} rewrites nothing")


def rewrite(
    module: Module, change: Callable[[Node], Node], number: Callable[[Expr], Expr] = lambda e: e
) -> Module:
    """Every pattern of the module rebuilt bottom-up: ``change`` of each node over changed children,
    ``number`` of each expression. What is rewritten keeps its span."""
    spans, done = dict(module.spans), dict[Node, Node]()

    def go(p: Node) -> Node:
        if p not in done:
            new = change(p.rebuild(go, number))
            if p in spans:
                spans.setdefault(new, spans[p])
            done[p] = new
        return done[p]

    functions = {name: Function(f.arguments, go(f.body)) for name, f in module.functions.items()}
    return dataclasses.replace(module, main=go(module.main), functions=functions, spans=spans)


@dataclasses.dataclass
class Facts:
    """What is known of patterns, remembered for the time of one pass."""

    _set: dict[Node, bool] = dataclasses.field(default_factory=dict)
    _summaries: dict[Node, bool] = dataclasses.field(default_factory=dict)

    def is_set(self, node: Node) -> bool:
        """Counts are 0 or 1: known from the operators alone, so a sum of disjoint patterns is none."""
        if node not in self._set:
            self._set[node] = self._counts_once(node)
        return self._set[node]

    def _counts_once(self, node: Node) -> bool:
        from patterndsl.patterns.transforms import Blocks, Transform

        match node:
            case Where() | Complement() | SymmetricDifference() | Blocks():
                return True
            case Transform():
                return self.is_set(node.p)
            case Pattern():
                return True
            case Union() | Intersection():
                return all(map(self.is_set, node.members))
            case Difference():
                return self.is_set(node.left)
            case Cases():
                return all(map(self.is_set, node.children))
        return False  # a sum; a call, whose body may be one; a mixture

    def tokens_only(self, node: Node) -> bool:
        """Certain to hold no summaries."""
        if node not in self._summaries:
            self._summaries[node] = isinstance(node, (Call, Mix)) or (
                type(node).summaries is not Pattern.summaries
                if isinstance(node, Pattern)
                else not all(map(self.tokens_only, node.children))
            )
        return not self._summaries[node]

    def plain(self, node: Node) -> bool:
        """A set of token pairs: nothing counts twice and nothing is a summary."""
        return self.tokens_only(node) and self.is_set(node)


def constant(name: str) -> Node:
    """``full`` or ``none``."""
    from patterndsl.patterns import builtin

    cls = builtin(name)
    assert cls is not None
    return cls()


def joined(kind: type[Union] | type[Intersection] | type[Sum], members: list[Node]) -> Node:
    """The members under one operator: itself, if there is one; the neutral element, if there is none."""
    if len(members) == 1:
        return members[0]
    if not members:
        return constant("full" if kind is Intersection else "none")
    return kind(tuple(members))
