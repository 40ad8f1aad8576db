"""Causal sinking: what holds for a whole union is said of the windows in it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.ir.nodes import Intersection, Module, Node, Sum, Union
from patterndsl.passes.base import Pass, joined, rewrite
from patterndsl.passes.windows import window


@dataclasses.dataclass(frozen=True)
class SinkCausal(Pass):
    """`causal`, or another window, over a union goes into the windows of the union and stays with the rest.

    ``causal & (local(8) | a | b)`` -> ``local(left=7, right=0) | causal & (a | b)``
    """

    name: ClassVar[str] = "sink_causal"

    def apply(self, module: Module) -> Module:
        return rewrite(module, _sunk)


def _sunk(p: Node) -> Node:
    if not isinstance(p, Intersection):
        return p
    outer = next((m for m in p.members if window(m) is not None), None)
    inner = next((m for m in p.members if isinstance(m, (Union, Sum)) and any(map(window, m.members))), None)
    if outer is None or inner is None:
        return p
    rest = [m for m in inner.members if window(m) is None]
    below = joined(type(inner), rest)
    parts: dict[Node, Node] = {m: _meet(outer, m) for m in inner.members if window(m) is not None}
    if rest:
        parts[rest[0]] = joined(
            Intersection, [outer, *(below.members if type(below) is Intersection else [below])]
        )
    members = [parts[m] for m in inner.members if m in parts]
    sunk = joined(type(inner), members)
    return joined(Intersection, [sunk if m is inner else m for m in p.members if m is not outer])


def _meet(outer: Node, inner: Node) -> Node:
    a, b = window(outer), window(inner)
    assert a is not None and b is not None
    return (a & b).pattern()
