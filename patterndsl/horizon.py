"""What a stream has to remember: which keys of earlier pieces the queries of later ones read.

A pattern can be computed piece by piece, in memory that does not grow, if a query q reads only

- keys up to itself,
- of these the first `pinned` ones of the sequence, and those from ``pinned + t · period`` on, where t is the
  largest for which this is `reach` or more before q,

and if, without the t · period keys in between, it would read the same. A state then holds the pinned keys and
the last ones; those between are gone, and neither pattern nor plan notices. Each of these properties is
proved, for all positions and lengths at once (`ir.sets`, `ir.invariance`), and no pattern is known by name;
where no proof is found, the pattern is refused with the reason.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import NotStreamable
from patterndsl.ir import resolve, sets
from patterndsl.ir.expr import Expr, K, Q
from patterndsl.ir.interval import Env, Interval
from patterndsl.ir.invariance import invariance
from patterndsl.ir.nodes import Mix, Module, Node
from patterndsl.ir.normal import TOKENS, lift_mix
from patterndsl.ir.ranges import simplify_over

FAR = 2**62
"""Positions to which what is proved by intervals holds."""
MOST_KEPT = 2**24
MOST_PINNED = 2**16
TRIALS = 32


class Horizon(NamedTuple):
    """What a state remembers (see the module)."""

    pinned: int
    reach: int
    period: int

    @property
    def first(self) -> int:
        """Behind how many keys of the state a piece begins, at least, once some are left out."""
        return self.pinned + self.reach

    @property
    def whole(self) -> int:
        """The same of a piece that begins at a multiple of the period."""
        return -(-self.first // self.period) * self.period

    @property
    def size(self) -> int:
        """The keys of a state: a piece may begin at any place of a period."""
        return self.first + self.period - 1


class _Refused(Exception):
    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


@functools.lru_cache(maxsize=64)
def _of_nodes(nodes: tuple[Node, ...]) -> Horizon | tuple[str, str]:
    try:
        return _horizon([e for node in nodes for e in _predicates(node)])
    except _Refused as refused:
        return refused.reason, refused.advice


def horizon(module: Module, num_heads: int) -> Horizon:
    """What a stream of this pattern has to remember, for all heads. Raises SpecError where there is no
    bound, or none that is proved."""
    from patterndsl.api import differs_by_head

    main = module.main
    nodes = [main]
    if differs_by_head(main):
        nodes = [resolve.pick_head(main, head, num_heads) for head in range(num_heads)]
    found = _of_nodes(tuple(dict.fromkeys(nodes)))
    if not isinstance(found, Horizon):
        reason, advice = found
        raise SpecError(NotStreamable(pattern=str(main), reason=reason, advice=advice))
    return found


def _predicates(node: Node) -> Iterator[Expr]:
    """Of each branch the predicate of the pairs that it keeps, without n."""
    if node.holds_choice:
        why = "what it keeps is chosen from all q and k"
        raise _Refused(why, "call it on the whole sequence, or leave `select`, `lsh` and the like out")
    if node.holds_summaries:
        raise _Refused("it keeps summaries of chunks", "call it on the whole sequence, or keep tokens alone")
    lifted = lift_mix(node)
    for part in lifted.branches if isinstance(lifted, Mix) else (lifted,):
        try:
            found = sets.pattern_set(part).get(TOKENS)
            if found is None:
                continue
            keep = found.keep
            if keep.reads_data() or (found.count is not None and found.count.reads_data()):
                advice = "call it on the whole sequence, or leave the inputs out"
                raise _Refused("it reads run-time inputs", advice)
            _check_causal(keep)
            yield from _without_n(keep, found.count)
        except sets.NotDecided as error:
            why = f"which keys a query reads is not known for every length, as {error.reason}"
            raise _Refused(why, "call it on the whole sequence") from None


def _check_causal(keep: Expr) -> None:
    seen = sets.smallest(keep & (Q < K), sets.Domain("present"))
    if seen is not None:
        n, q, k = seen
        advice = "restrict it to keys up to the query: `causal & (…)`"
        raise _Refused(f"of {n} tokens, query {q} reads key {k}, which comes later", advice)


def _without_n(keep: Expr, count: Expr | None) -> Iterator[Expr]:
    """The predicate, and that of each count, at the length that just holds the query, if the length makes no
    difference."""
    last = {"n": Q + 1}
    whole = [keep] if count is None else [keep, count]
    own = [e.subs(last) for e in whole]
    for e, alone in zip(whole, own, strict=True):
        same = e.eq(alone) if e is count else (e & alone) | (~e & ~alone)
        if "n" in e.names() and not sets.is_empty(~same & (K <= Q), sets.Domain("present")):
            advice = "use numbers that do not depend on n, and positions counted from the beginning"
            raise _Refused("what a query reads depends on the length of the whole sequence", advice)
    yield from own


def _horizon(predicates: list[Expr]) -> Horizon:
    truths = [e for e in predicates if e.sort == "bool"]
    endless = False
    for pinned in _candidates(predicates):
        period = _period(predicates, pinned)
        if period is None:
            continue
        start = (Q - pinned) // period * period + pinned
        try:
            back = [_furthest(x - K, truths, pinned) for x in (Q, start)]
        except sets.NotDecided as error:
            why = f"how far behind a query its keys are is not known, as {error.reason}"
            raise _Refused(why, "call it on the whole sequence") from None
        if math.isinf(back[0]):
            endless = True
            continue
        # Counted from the query, or from where its period starts: then whole periods are needed.
        for reach in sorted((int(back[0]), -(-int(back[1]) // period) * period)):
            found = Horizon(pinned, reach, period)
            if found.size > MOST_KEPT:
                why = f"a state would hold {found.size:,} keys, of which at most {MOST_KEPT:,} are allowed"
                raise _Refused(why, "use smaller windows, or sizes with a smaller common multiple")
            if _pinned_alike(predicates, found):
                return found
    if endless:
        advice = "bound the distance: `& local(512)`, `chunked(512, back=1)`, `segment_memory(512, 512)`"
        raise _Refused("it reads keys at any distance behind the query, so that all must be kept", advice)
    raise _Refused(
        "no shift of queries and keys is found under which it stays as it is",
        "call it on the whole sequence, or use windows, chunks, segments and strides of bounded distance",
    )


def _furthest(distance: Expr, predicates: list[Expr], pinned: int) -> float:
    """The largest distance of a key behind its query, but for the pinned keys."""
    return max((0.0, *(sets.greatest(distance, e & (K - pinned >= 0)) for e in predicates)))


def _candidates(predicates: list[Expr]) -> list[int]:
    """How many keys at the beginning may be special: the numbers that occur are where positions are."""
    numbers = {x.number for e in predicates for x in e.walk() if x.number is not None}
    ends = {0} | {x + d for x in numbers for d in (0, 1)}
    return sorted(x for x in ends if 0 <= x <= MOST_PINNED)[:TRIALS]


def _period(predicates: list[Expr], pinned: int) -> int | None:
    """The shifts of queries and keys, all after the pinned ones, that change nothing."""
    after = Interval(pinned, FAR)
    return _common(predicates, {"q": after, "k": after}, {"q": Fraction(1), "k": Fraction(1)})


def _pinned_alike(predicates: list[Expr], found: Horizon) -> bool:
    """Whether queries behind all that a state holds read the pinned keys alike, a period further on."""
    if not found.pinned:
        return True
    env: Env = {"q": Interval(found.first, FAR), "k": Interval(0, found.pinned - 1)}
    period = _common(predicates, env, {"q": Fraction(1), "k": Fraction(0)})
    return period is not None and found.period % period == 0


def _common(predicates: list[Expr], env: Env, slopes: dict[str, Fraction]) -> int | None:
    periods = [invariance(simplify_over(e, env), slopes) for e in predicates]
    known = [p for p in periods if p is not None]
    return math.lcm(1, *known) if len(known) == len(periods) else None
