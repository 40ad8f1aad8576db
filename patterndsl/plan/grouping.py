"""Groups of queries and keys that are known at run time: what `select`, `lsh` and `cluster` keep.

A conjunct of a predicate that says ``choice[row, i] = group(k)`` for some i, or that some i has both a query
and a key, is no property of tiles, as which queries meet which keys is known late. Queries are then brought
together by what they chose, or what chose them: each group of keys is met by those alone that are in it, so
that the work follows the choice and not the n² tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

from patterndsl.ir.expr import TRUE, Expr, K, Q, all_of, bound, var
from patterndsl.ir.nodes import Fact
from patterndsl.plan.plan import Grouping, Membership

GROUPED = "grouped"
"""The layout of a part that is run so."""

CHOICE = var("i")

WORD = 32
"""Groups whose members are compared at once, to see whether an earlier one has a pair: bits of an integer."""


def grouping_of(keep: Expr, n: int) -> tuple[Grouping | Membership, Expr] | None:
    """The groups of the first conjunct that speaks of some, and what else is asked of a pair; None where no
    conjunct does."""
    conjuncts = keep.args if keep.op == "and" else (keep,)
    for i, conjunct in enumerate(conjuncts):
        found = _grouping(conjunct, n) or _membership(conjunct)
        if found is not None:
            rest = all_of(*conjuncts[:i], *conjuncts[i + 1 :]) if len(conjuncts) > 1 else TRUE
            return found, rest
    return None


Found = TypeVar("Found", bound=Hashable)


def _for_some(e: Expr, read: Callable[[Expr], tuple[Found, Expr] | None]) -> tuple[Found, int] | None:
    """What ``read`` finds in a conjunct that says it for some i = 0, 1, …, in a loop or one by one, where it
    returns the i beside; and how many of these there are."""
    if e.op == "exists":
        name, trips = bound(e)
        first, last, body = e.args
        one = read(body)
        if first.number != 0 or last.number != trips - 1 or one is None or one[1] is not var(name):
            return None
        return one[0], trips
    if e.op != "or":
        return None
    found = [read(x) for x in e.args]
    each = [x for x in found if x is not None]
    if len(each) < len(found) or len({what for what, _ in each}) > 1:
        return None
    indices = sorted(-1 if i.number is None else int(i.number) for _, i in each)
    return (each[0][0], len(each)) if indices == list(range(len(each))) else None


def _grouping(e: Expr, n: int) -> Grouping | None:
    """The groups that a conjunct says a query names."""
    some = _for_some(e, _named)
    if some is not None:
        return _of(some[0], CHOICE, some[1], n)
    one = _named(e)
    return None if one is None else _of(*one, 1, n)


def _named(e: Expr) -> tuple[tuple[Fact, Expr, Expr], Expr] | None:
    """``fact[row, i] = key``, where the row depends on the query: the fact, the row and the key's group; and
    i."""
    if e.op != "eq":
        return None
    for a, b in (e.args, e.args[::-1]):
        if (
            isinstance(a.value, Fact)
            and len(a.args) == 2
            and a.args[0].names() == {"q"}
            and b.names() == {"k"}
        ):
            return (a.value, a.args[0], b), a.args[1]
    return None


def _membership(e: Expr) -> Membership | None:
    """The groups that a conjunct says have both the query and the key."""
    some = _for_some(e, _taken)
    return None if some is None else Membership(*some[0], some[1])


def _taken(e: Expr) -> tuple[tuple[Fact, Fact, Expr], Expr] | None:
    """``queries[row, i] = 1`` and ``keys[k, i] = 1``, where the row depends on the query: both facts and the
    row, and i."""
    if e.op != "and" or len(e.args) != 2:
        return None
    found: dict[str, Expr] = {}
    for x in e.args:
        if x.op != "eq":
            return None
        for a, b in (x.args, x.args[::-1]):
            if isinstance(a.value, Fact) and len(a.args) == 2 and b.number == 1:
                found.update(dict.fromkeys(a.args[0].names(), a))
    q, k = found.pop("q", None), found.pop("k", None)
    if q is None or k is None or found or k.args[0] is not K or q.args[1] is not k.args[1]:
        return None
    assert isinstance(q.value, Fact) and isinstance(k.value, Fact)
    return (q.value, k.value, q.args[0]), q.args[1]


def _of(named: tuple[Fact, Expr, Expr], index: Expr, choices: int, n: int) -> Grouping | None:
    fact, row, key = named
    made = functools.partial(Grouping, fact, row, index, choices, key)
    if key.op == "floordiv" and key.args[0] is K and key.args[1].number is not None:
        size = int(key.args[1].number)
        return made(-(-n // size), size)
    if key is K:
        return made(n, 1)
    if isinstance(key.value, Fact) and key.args[0] is K and row is Q:
        return made(key.value.pattern.largest(key.value.name) + 1, None)
    return None


def facts(g: Grouping | Membership) -> frozenset[Fact]:
    """What is read to bring queries and keys together."""
    return frozenset({g.queries, g.keys} if isinstance(g, Membership) else {g.fact, *g.key.facts()})


def most_queries(g: Membership, n_q: int) -> int:
    """A bound on the queries of a group."""
    return g.queries.pattern.per_column(g.queries.name, n_q)


def most_keys(g: Grouping | Membership, n: int) -> int | None:
    """A bound on the keys of a group; None where there is none but n."""
    return g.keys.pattern.per_column(g.keys.name, n) if isinstance(g, Membership) else g.size


def pairs(g: Grouping | Membership, n: int, n_q: int, block_q: int, block_k: int) -> int:
    """Pairs that are computed, masked ones too, where the choices fall on all groups alike, or groups take as
    many as they may."""
    keys = math.ceil((most_keys(g, n) or math.ceil(n / g.groups)) / block_k) * block_k
    return tiles(g, n_q, block_q) * block_q * min(keys, math.ceil(n / block_k) * block_k)


def tiles(g: Grouping | Membership, n_q: int, block_q: int) -> int:
    """How many tiles of queries there are then: of groups that are chosen, half a tile more for each than are
    full."""
    if isinstance(g, Membership):
        return g.groups * math.ceil(most_queries(g, n_q) / block_q)
    entries = n_q * g.choices
    return min(math.ceil(entries / block_q + g.groups / 2), entries)


def before(keep: Expr) -> bool:
    """Whether a predicate says that keys are not after their query."""
    conjuncts: Iterator[Expr] = iter(keep.args if keep.op == "and" else (keep,))
    return any(c.op == "le" and c.args == (K, Q) for c in conjuncts)


def description(g: Grouping | Membership) -> str:
    """What the groups are, as a text."""
    if isinstance(g, Membership):
        return f"{g.groups:,} groups that take queries and keys; those of one group meet"
    what = f"blocks of {g.size} keys" if g.size else f"{g.groups:,} groups of keys, sorted by them"
    number = "1 group" if g.choices == 1 else f"{g.choices:,} groups"
    return f"{what}; each query meets {number} that it chose"
