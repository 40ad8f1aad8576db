"""The IR: pattern nodes. This file is the whole of it, with `ir.expr` for the scalars inside.

A pattern maps a query to the *slots* that it keeps: tokens, and summaries of chunks of tokens (`Pool`), each
with a count (0 or 1, more only under `Sum`). Nodes are immutable and hash-consed: equality is identity. The
built-in patterns are subclasses of `Pattern` in `patterndsl.patterns`, one file each.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from patterndsl.ir.expr import Expr, build
from patterndsl.ir.interned import Interned

if TYPE_CHECKING:
    from patterndsl.backends.facts import Data, FactArray
    from patterndsl.plan.orders import Order


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tokens(metaclass=Interned):
    """A token list, ``[0, 5, 8:16, ::512, -1]``: numbers, and (start, stop, step) with None where left
    out."""

    items: tuple[Expr | tuple[Expr | None, Expr | None, Expr | None], ...]


Shape: TypeAlias = tuple[Expr, ...]
Argument: TypeAlias = "Expr | Tokens | Shape | Node | str | bool | None"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Node(metaclass=Interned):
    """A pattern."""

    @property
    def children(self) -> tuple[Node, ...]:
        """The patterns directly under it."""
        found: list[Node] = []
        for f in dataclasses.fields(self):
            x = getattr(self, f.name)
            if isinstance(x, Node):
                found.append(x)
            elif isinstance(x, tuple):
                found.extend(y for y in x if isinstance(y, Node))
        return tuple(found)

    @functools.cached_property
    def holds_summaries(self) -> bool:
        """Whether it can keep summaries, at some length."""
        own = isinstance(self, Pattern) and type(self).summaries is not Pattern.summaries
        return own or any(child.holds_summaries for child in self.children)

    @functools.cached_property
    def holds_choice(self) -> bool:
        """Whether what it keeps is chosen from the data, q and k."""
        own = isinstance(self, Pattern) and type(self).facts is not Pattern.facts
        return own or any(child.holds_choice for child in self.children)

    def rebuild(self, child: Callable[[Node], Node], number: Callable[[Expr], Expr] = lambda e: e) -> Node:
        """The same node over ``child`` of each child and ``number`` of each expression."""

        def go(x: Any) -> Any:
            if isinstance(x, Node):
                return child(x)
            if isinstance(x, Expr):
                return number(x)
            if isinstance(x, Tokens):
                return Tokens(go(x.items))
            return tuple(go(y) for y in x) if isinstance(x, tuple) else x

        old = [getattr(self, f.name) for f in dataclasses.fields(self)]
        new = [go(x) for x in old]
        same = all(a is b or (isinstance(a, tuple) and a == b) for a, b in zip(old, new, strict=True))
        return self if same else type(self)(*new)

    def __repr__(self) -> str:
        from patterndsl.ir.text import node_text

        return node_text(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Where(Node):
    """The token pairs for which a predicate over ``q``, ``k``, ``n``, ``h`` and inputs holds."""

    keep: Expr


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Union(Node):
    """``a | b``: kept by either; counts are the larger."""

    members: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Intersection(Node):
    """``a & b``: kept by both; counts multiply, so that a set restricts ``a + b`` and leaves its counts.
    Tokens under a summary must all be kept."""

    members: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SymmetricDifference(Node):
    """``a ^ b``: kept by exactly one (an odd number, of several). Tokens only."""

    members: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sum(Node):
    """``a + b``: counts add up."""

    members: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Difference(Node):
    """``a - b``: kept by a and not by b; counts subtract, down to 0. b has tokens only."""

    left: Node
    right: Node


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Complement(Node):
    """``~a``: kept where a keeps nothing. Tokens only."""

    operand: Node


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Mix(Node):
    """``mix(a, b)``: separately normalised branches, combined by run-time gates."""

    branches: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Range(metaclass=Interned):
    """Heads or layers start … stop − 1 (``stop=None``: all that follow), of which every ``step``-th."""

    start: int
    stop: int | None
    step: int = 1

    def __contains__(self, i: int) -> bool:
        return i >= self.start and (self.stop is None or i < self.stop) and (i - self.start) % self.step == 0

    def meets(self, other: Range) -> int | None:
        """The first of those that both have."""
        g = math.gcd(self.step, other.step)
        apart, odd = divmod(other.start - self.start, g)
        if odd:
            return None
        turns = other.step // g
        first = self.start + self.step * (apart * pow(self.step // g, -1, turns) % turns)
        lower = max(self.start, other.start)
        first += max(0, -((first - lower) // (self.step * turns))) * self.step * turns
        return first if first in self and first in other else None


def in_two(ranges: Sequence[Range]) -> int | None:
    """Something that two of the ranges have in common."""
    plain = sorted((r for r in ranges if r.step == 1), key=lambda r: r.start)
    stepped = [(i, r) for i, r in enumerate(ranges) if r.step > 1]
    pairs = [
        *itertools.pairwise(plain),
        *((a, b) for i, a in stepped for j, b in enumerate(ranges) if i != j),
    ]
    return next((both for a, b in pairs if (both := a.meets(b)) is not None), None)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Cases(Node):
    """One pattern for each head or layer; ``otherwise`` is the ``_`` case. Earlier layer cases win."""

    ranges: tuple[Range, ...]
    patterns: tuple[Node, ...]
    otherwise: Node | None

    def covers(self, i: int) -> bool:
        """Whether a case names head or layer ``i``."""
        return any(i in r for r in self.ranges)

    def pick(self, i: int) -> Node | None:
        """The pattern of head or layer ``i``, None where no case covers it."""
        hits = (p for r, p in zip(self.ranges, self.patterns, strict=True) if i in r)
        return next(hits, self.otherwise)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Heads(Cases):
    """``heads { 0:4 => a; _ => b }``."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Layers(Cases):
    """``layers { every 6 => a; _ => b }``: ``every 6`` is layers 5, 11, 17 …"""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Call(Node):
    """A call of a pattern function of the module; gone after inlining."""

    function: str
    arguments: tuple[Expr, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pool(metaclass=Interned):
    """Summaries: chunk c stands for tokens c·stride … min(c·stride + size, n) − 1, pooled by ``reduce``.

    ``weight="count"`` adds log(tokens in the chunk) to the summary's logit. ``level`` is for display. With
    ``of``, whose chunks lie side by side, it is not the tokens that are pooled but the summaries c·fan …
    c·fan + fan − 1 of that pool, of which those that stand for a token.
    """

    size: int
    stride: int
    reduce: str | Callable[..., Any] = "mean"
    weight: str = "count"
    level: int = 1
    of: Pool | None = None
    fan: int = 1

    def chunks(self, n: int) -> int:
        """How many chunks n tokens make, the ragged last one included."""
        return -(-n // self.stride)

    def nests(self, n: int) -> bool:
        """Whether, at n, the summaries that a chunk is made of stand for the chunk's tokens."""
        if self.of is None:
            return True
        apart = self.of.size != self.of.stride or self.size != self.stride
        one = self.chunks(n) <= 1 and self.of.chunks(n) <= self.fan
        return self.of.nests(n) and not apart and (one or self.stride == self.fan * self.of.stride)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pattern(Node):
    """A built-in pattern. Subclasses live in `patterndsl.patterns`, which documents what they define."""

    name: ClassVar[str]
    source: ClassVar[str] = ""
    growth: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        """The predicate that defines the token pairs kept."""
        raise NotImplementedError(f"{type(self).__name__} defines no token pairs")

    def summaries(self, n: int | None) -> tuple[tuple[Pool, Expr], ...]:
        """The summaries kept: for each pool a predicate over ``q`` and the chunk's index ``c``.

        ``n=None``: at every length; raises `Unknown` where which pools there are depends on n.
        """
        return ()

    def pairs(self, n: Expr) -> Expr:
        """An upper bound on the slots kept in all, as a number over n; its class is the growth."""
        return n * n

    def layouts(self, n: int) -> tuple[Order, ...]:
        """The orders of queries and tokens in which what it keeps at n lies in dense tiles, best first."""
        return ()

    def facts(self, x: Data) -> Mapping[str, FactArray]:
        """What ``keep`` reads of q and k (by `fact`), computed once a call; only of a pattern that is chosen
        from the data."""
        raise NotImplementedError(f"{type(self).__name__} reads no data")

    def largest(self, name: str) -> int:
        """A bound on the values of one of its facts, at up to 2^30 keys; the least is −1."""
        raise NotImplementedError(f"{type(self).__name__} reads no data")

    def per_column(self, name: str, n: int) -> int:
        """A bound on how many of n queries or keys have other than 0 in one column of one of its facts."""
        return n

    def check(self, n: int | None) -> None:
        """Raise `SpecError` where the arguments make no sense (at this n, if it is known)."""

    def members(self, n: int) -> tuple[Node, ...]:
        """Patterns whose union it is at n, which a plan may lay out apart: itself, unless said otherwise."""
        return (self,)

    def simplified(self) -> Node:
        """The simplest pattern that means the same, at every n and for every position of the query."""
        return self


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fact(metaclass=Interned):
    """Integers that a pattern, bound at n, makes of q and k at run time: the field ``name`` of its
    `facts`."""

    pattern: Pattern
    name: str

    def __repr__(self) -> str:
        return f"{self.pattern.name}.{self.name}"


def fact(pattern: Pattern, name: str, *indices: Expr | int) -> Expr:
    """The value of a fact at one or two indices, each moved into the array."""
    return build("fact", *indices, value=Fact(pattern, name))


@dataclasses.dataclass(frozen=True)
class Function:
    """A pattern function of a module: names of its arguments, and its body over ``%name``."""

    arguments: tuple[str, ...]
    body: Node


INPUT_KINDS = ("token", "centroids")
"""What a run-time input holds: an integer for each token, or the centroids of `cluster`."""


@dataclasses.dataclass(frozen=True)
class Module:
    """A spec: its main pattern, what it declares, and where in the text each node stood."""

    main: Node
    params: Mapping[str, Expr] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Run-time inputs, and of which kind each is."""
    functions: Mapping[str, Function] = dataclasses.field(default_factory=dict)
    spans: Mapping[Node, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)
