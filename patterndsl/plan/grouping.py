"""Groups of keys, of which each query names some at run time: what `select` and `lsh` keep.

A conjunct of a predicate that says ``choice[row, i] = group(k)`` for some i is no property of tiles, as which
queries meet which keys is known late. Queries are then brought together by what they chose: each group of
keys is met by those alone that named it, so that the work follows the choice and not the n² tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from patterndsl.ir.expr import TRUE, Expr, K, Q, all_of, bound, var
from patterndsl.ir.nodes import Fact
from patterndsl.plan.plan import Grouping

GROUPED = "grouped"
"""The layout of a part that is run so."""

CHOICE = var("i")


def grouping_of(keep: Expr, n: int) -> tuple[Grouping, Expr] | None:
    """The groups of the first conjunct that speaks of some, and what else is asked of a pair; None where no
    conjunct does."""
    conjuncts = keep.args if keep.op == "and" else (keep,)
    for i, conjunct in enumerate(conjuncts):
        found = _grouping(conjunct, n)
        if found is not None:
            rest = all_of(*conjuncts[:i], *conjuncts[i + 1 :]) if len(conjuncts) > 1 else TRUE
            return found, rest
    return None


def _grouping(e: Expr, n: int) -> Grouping | None:
    """The groups that a conjunct speaks of."""
    if e.op == "exists":
        name, trips = bound(e)
        first, last, body = e.args
        one = _named(body)
        if first.number != 0 or last.number != trips - 1 or one is None or one[1] is not var(name):
            return None
        return _of(one[0], CHOICE, one[2], trips, n)
    found = [_named(x) for x in (e.args if e.op == "or" else (e,))]
    each = [x for x in found if x is not None]
    if len(each) < len(found) or len({(x.value, x.args[0], key) for x, _, key in each}) > 1:
        return None
    (fact, index, key), *others = each
    if not others:
        return _of(fact, index, key, 1, n)
    indices = sorted(-1 if i.number is None else int(i.number) for _, i, _ in each)
    return _of(fact, CHOICE, key, len(each), n) if indices == list(range(len(each))) else None


def _named(e: Expr) -> tuple[Expr, Expr, Expr] | None:
    """``fact[row, i] = key``, where the row depends on the query: the left side, i and the key's group."""
    if e.op != "eq":
        return None
    for a, b in (e.args, e.args[::-1]):
        if (
            isinstance(a.value, Fact)
            and len(a.args) == 2
            and a.args[0].names() == {"q"}
            and b.names() == {"k"}
        ):
            return a, a.args[1], b
    return None


def _of(named: Expr, index: Expr, key: Expr, choices: int, n: int) -> Grouping | None:
    assert isinstance(named.value, Fact)
    made = functools.partial(Grouping, named.value, named.args[0], index, choices, key)
    if key.op == "floordiv" and key.args[0] is K and key.args[1].number is not None:
        size = int(key.args[1].number)
        return made(-(-n // size), size)
    if key is K:
        return made(n, 1)
    if isinstance(key.value, Fact) and key.args[0] is K and named.args[0] is Q:
        return made(key.value.pattern.largest(key.value.name) + 1, None)
    return None


def pairs(g: Grouping, n: int, n_q: int, block_q: int, block_k: int) -> int:
    """Pairs that are computed, masked ones too, where the choices fall on all groups alike."""
    keys = math.ceil((g.size or math.ceil(n / g.groups)) / block_k) * block_k
    return tiles(g, n_q, block_q) * block_q * min(keys, math.ceil(n / block_k) * block_k)


def tiles(g: Grouping, n_q: int, block_q: int) -> int:
    """How many tiles of queries there are then: half a tile more for each group than are full."""
    entries = n_q * g.choices
    return min(math.ceil(entries / block_q + g.groups / 2), entries)


def before(keep: Expr) -> bool:
    """Whether a predicate says that keys are not after their query."""
    conjuncts: Iterator[Expr] = iter(keep.args if keep.op == "and" else (keep,))
    return any(c.op == "le" and c.args == (K, Q) for c in conjuncts)


def description(g: Grouping) -> str:
    """What the groups are, as a text."""
    what = f"blocks of {g.size} keys" if g.size else f"{g.groups:,} groups of keys, sorted by them"
    number = "1 group" if g.choices == 1 else f"{g.choices:,} groups"
    return f"{what}; each query meets {number} that it chose"
