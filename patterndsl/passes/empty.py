"""Patterns that keep nothing."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.diagnostics.warnings import KeepsNothing
from patterndsl.ir.nodes import Intersection, Module, Node, Pattern, Where
from patterndsl.passes.base import Facts, Pass, constant, rewrite
from patterndsl.passes.proofs import Prover


@dataclasses.dataclass(frozen=True)
class Empty(Pass):
    """What keeps no pair, at any n and wherever the query stands, becomes ``none``.

    ``columns([0]) & where(q, k: k > n)`` -> ``none``
    """

    name: ClassVar[str] = "empty"

    def apply(self, module: Module) -> Module:
        facts, prover = Facts(), Prover()

        def change(p: Node) -> Node:
            meets = isinstance(p, (Intersection, Where)) or not isinstance(p, Pattern)
            return constant("none") if meets and facts.tokens_only(p) and prover.empty(p) else p

        return rewrite(module, change)


def find_empty(module: Module) -> tuple[KeepsNothing, ...]:
    """A warning for each pattern, as written, of which no query at 0 … n − 1 sees a key, at any n; none for
    what is within such a pattern, nor for `none` itself."""
    facts, prover = Facts(), Prover("present")
    found: dict[Node, KeepsNothing] = {}
    pending, seen = [module.main], set[Node]()
    while pending:
        p = pending.pop()
        if p in seen or p is constant("none"):
            continue
        seen.add(p)
        if facts.tokens_only(p) and prover.empty(p):
            found[p] = KeepsNothing(pattern=str(p), span=module.spans.get(p))
        else:
            pending.extend(p.children)
    return tuple(found.values())
