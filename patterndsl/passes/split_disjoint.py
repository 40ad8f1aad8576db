"""Disjoint splitting: a union as a sum of parts that share no pair."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.ir.nodes import Cases, Complement, Intersection, Mix, Module, Node, Sum, Union
from patterndsl.passes.base import Facts, Pass, joined


@dataclasses.dataclass(frozen=True)
class SplitDisjoint(Pass):
    """The outermost unions become sums of disjoint parts, each of which may have a layout of its own: parts
    of a sum are computed apart and merged by log-sum-exp. Members with summaries, or counts, stay together.

    ``a | b | c`` -> ``a + b & ~a + c & ~a & ~b``
    """

    name: ClassVar[str] = "split_disjoint"

    def apply(self, module: Module) -> Module:
        facts, spans = Facts(), dict(module.spans)

        def go(p: Node) -> Node:
            new = p
            if isinstance(p, (Intersection, Mix, Cases)):
                new = p.rebuild(go)
            elif isinstance(p, Union):
                new = _split(p, facts)
            if p in spans:
                spans.setdefault(new, spans[p])
            return new

        return dataclasses.replace(module, main=go(module.main), spans=spans)


def _split(p: Union, facts: Facts) -> Node:
    plain = [m for m in dict.fromkeys(p.members) if facts.plain(m)]
    if len(plain) < 2:
        return p
    parts: list[Node] = []
    before: list[Node] = []
    for m in plain:
        own = list(m.members) if isinstance(m, Intersection) else [m]
        parts.append(joined(Intersection, [*own, *before]))
        before.append(Complement(m))
    others = [m for m in p.members if m not in plain]
    return joined(Union, [Sum(tuple(parts)), *others])
