"""Canonical form: the rewrites that need no proof."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import ClassVar

from patterndsl.ir.expr import FALSE, TRUE
from patterndsl.ir.nodes import (
    Call,
    Complement,
    Difference,
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
from patterndsl.ir.normal import walk
from patterndsl.passes.base import Facts, Pass, constant, joined, rewrite
from patterndsl.passes.windows import window


@dataclasses.dataclass(frozen=True)
class Canonicalize(Pass):
    """Operators are flattened, what is neutral, doubled or absorbed is dropped, patterns take their simplest
    form. Members stay in the order in which they were written.

    - ``(a | none) | a | b`` -> ``a | b``; ``a & full`` -> ``a``
    - ``a & ~a`` -> ``none``; ``a ^ a`` -> ``none``; ``~~a`` -> ``a``; ``~(~a | b)`` -> ``a & ~b``
    - ``a - b`` -> ``a & ~b``, so that the rules for ``&`` apply
    - ``causal & local(8)`` -> ``local(left=7, right=0)``; ``local(left=3, right=3)`` -> ``local(4)``

    Counts stay: ``a + a`` is left alone, and so is each of the others where ``a`` may count a pair twice.
    """

    name: ClassVar[str] = "canonicalize"

    def apply(self, module: Module) -> Module:
        rules = _Rules(Facts())
        while (new := rewrite(module, rules.node)) != module:
            module = new
        return module


@dataclasses.dataclass
class _Rules:
    facts: Facts

    def node(self, p: Node) -> Node:
        match p:
            case Where(keep) if keep in (TRUE, FALSE):
                return constant("full" if keep is TRUE else "none")
            case Union():
                return self.union(_flat(p))
            case Sum():
                return joined(Sum, [m for m in _flat(p) if not _is(m, "none")])
            case Intersection():
                return self.intersection(_flat(p))
            case SymmetricDifference():
                return self.symmetric_difference(_flat(p))
            case Difference():
                return self.difference(p)
            case Complement():
                return self.complement(p)
            case Pattern():
                exact = window(p)
                return p.simplified() if exact is None else exact.pattern()
        return p

    def union(self, flat: list[Node]) -> Node:
        members = [m for m in dict.fromkeys(flat) if not _is(m, "none")]
        sets = {m: None for m in members if self.facts.plain(m)}
        everything = any(_is(m, "full") for m in sets) or any(_opposite(m) in sets for m in sets)
        if everything:  # a count above one, or a summary, is more than `full`
            first = next(m for m in members if m in sets)
            members = [constant("full") if m is first else m for m in members if m is first or m not in sets]
        return joined(Union, members)

    def intersection(self, flat: list[Node]) -> Node:
        members, seen = list[Node](), set[Node]()
        for m in flat:
            if not _is(m, "full") and not (m in seen and self.facts.plain(m)):
                members.append(m)
                seen.add(m)
        empty = any(_is(m, "none") or _opposite(m) in seen for m in members)
        if empty and not any(isinstance(x, (Mix, Call)) for m in members for x in walk(m)):  # gates stay
            return constant("none")
        return joined(Intersection, _narrowed(members))

    def symmetric_difference(self, flat: list[Node]) -> Node:
        odd: dict[Node, None] = {}
        turned = False
        for m in flat:
            if isinstance(m, Complement):
                m, turned = m.operand, not turned
            if _is(m, "full"):
                turned = not turned
            elif m in odd:
                del odd[m]
            elif not _is(m, "none"):
                odd[m] = None
        if len(odd) > 1:
            only: Node = SymmetricDifference(tuple(odd))
        else:
            only = next(iter(odd), constant("none"))
        if turned:
            return self.complement(Complement(only))
        return only if self.facts.is_set(only) else Complement(Complement(only))

    def difference(self, p: Difference) -> Node:
        left, right = p.left, p.right
        if _is(right, "none") or _is(left, "none"):
            return left
        if left is right or (_is(right, "full") and self.facts.is_set(left)):
            return constant("none")
        if self.facts.is_set(left):
            return self.intersection([*_members(left, Intersection), self.complement(Complement(right))])
        return p

    def complement(self, p: Complement) -> Node:
        match p.operand:
            case Complement(inner) if self.facts.is_set(inner):
                return inner
            case Where(keep):
                return Where(~keep)
            case Union(members) | Intersection(members):
                turned = [m for m in members if isinstance(m, Complement)]
                shorter = len(members) < 1 + 2 * len(turned)
                if shorter and all(self.facts.is_set(m.operand) for m in turned):
                    other = [self.complement(Complement(m)) for m in members]
                    if isinstance(p.operand, Union):
                        return self.intersection(_flat(Intersection(tuple(other))))
                    return self.union(_flat(Union(tuple(other))))
        if _is(p.operand, "full") or _is(p.operand, "none"):
            return constant("none" if _is(p.operand, "full") else "full")
        return p


def _narrowed(members: list[Node]) -> list[Node]:
    """Windows on the distance between query and key, `causal` among them, meet in one window."""
    found = {m: w for m in members if (w := window(m)) is not None}
    if len(found) < 2:
        return members
    first = next(iter(found))
    narrow = functools.reduce(operator.and_, found.values()).pattern()
    return [narrow if m is first else m for m in members if m is first or m not in found]


def _flat(p: Union | Sum | Intersection | SymmetricDifference) -> list[Node]:
    return [x for m in p.members for x in _members(m, type(p))]


def _members(p: Node, kind: type[Node]) -> list[Node]:
    return list(p.members) if type(p) is kind else [p]  # type: ignore[attr-defined]


def _is(p: Node, name: str) -> bool:
    return isinstance(p, Pattern) and p.name == name


def _opposite(p: Node) -> Node:
    """What keeps a pair exactly where ``p`` keeps none, if that is written somewhere."""
    if isinstance(p, Where):
        return Where(~p.keep)
    return p.operand if isinstance(p, Complement) else Complement(p)
