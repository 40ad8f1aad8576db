"""Subsumption: members that add nothing to what the others say."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.ir.nodes import Intersection, Module, Node, Sum, Union
from patterndsl.passes.base import Facts, Pass, joined, rewrite
from patterndsl.passes.proofs import Prover

MEMBERS = 64
"""Operators with more members are left alone: each is compared with each."""


@dataclasses.dataclass(frozen=True)
class Subsume(Pass):
    """Members of a union that another one contains are dropped; members of an intersection that contain what
    the others leave; and, in a union under an intersection, what the other members make empty or redundant.
    Each is proved for every n. Of two equal members the first stays.

    - ``local(64) | local(128)`` -> ``local(128)``; ``chunked(8) & local(8)`` -> ``chunked(8)``
    - ``causal & (local(left=0, right=3) & ~self | a)`` -> ``causal & a``
    """

    name: ClassVar[str] = "subsume"

    def apply(self, module: Module) -> Module:
        return rewrite(module, _Rules(Facts(), Prover()).node)


@dataclasses.dataclass
class _Rules:
    facts: Facts
    prover: Prover

    def node(self, p: Node) -> Node:
        if isinstance(p, Union) and len(p.members) <= MEMBERS:
            return self.union(p)
        if isinstance(p, Intersection) and len(p.members) <= MEMBERS:
            return self.intersection(p)
        return p

    def union(self, p: Union) -> Node:
        alive = list(p.members)
        for m in reversed(p.members):
            others = [x for x in alive if x is not m]
            if self.facts.plain(m) and any(self.prover.subset(m, x) for x in others):
                alive = others
        return joined(Union, alive)

    def intersection(self, p: Intersection) -> Node:
        alive = list(p.members)
        for i in reversed(range(len(alive))):
            rest = self.rest(alive, i)
            if (
                self.facts.plain(alive[i])
                and rest
                and self.prover.subset(joined(Intersection, rest), alive[i])
            ):
                del alive[i]
        for i, m in enumerate(alive):
            if isinstance(m, (Union, Sum)) and len(m.members) <= MEMBERS:
                alive[i] = self.within(m, self.rest(alive, i))
        return joined(Intersection, alive)

    def rest(self, members: list[Node], i: int) -> list[Node]:
        """The other members that are sure to restrict: those of tokens alone, for a summary has to be kept by
        each token pattern beside it, not by the pattern that holds it."""
        return [m for j, m in enumerate(members) if j != i and self.facts.tokens_only(m)]

    def within(self, p: Union | Sum, rest: list[Node]) -> Node:
        """The union, as far as it matters to pairs that the rest keeps."""
        if not rest:
            return p
        context = joined(Intersection, rest)
        alive = list(p.members)
        for m in reversed(p.members):
            others = [x for x in alive if x is not m]
            if not self.facts.tokens_only(m):
                continue
            if self.prover.disjoint(context, m):
                alive = others
            elif isinstance(p, Union) and self.facts.is_set(m):
                here = joined(Intersection, [*rest, m])
                if any(self.prover.subset(here, x) for x in others):
                    alive = others
        return joined(type(p), alive)
