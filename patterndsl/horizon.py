"""What a stream has to remember: which keys of earlier pieces the queries of later ones read.

A pattern can be computed piece by piece, in memory that does not grow, if a query q reads only

- keys up to itself,
- of these the first `pinned` ones of the sequence, and those from ``pinned + t · period`` on, where t is the
  largest for which this is `reach` or more before q,

and if, without the t · period keys in between, it would read the same. A state then holds the pinned keys and
the last ones; those between are gone, and neither pattern nor plan notices. Each of these properties is
proved, for all positions and lengths at once (`ir.sets`, `ir.invariance`), and no pattern is known by name;
where no proof is found, the pattern is refused with the reason. To read a summary is to read all of its
tokens, and it must be complete, as it would change when more of them come. Keys further back than `recent`
are read in summaries alone: of these the state holds one for every `grain` tokens.

Run-time inputs move with their tokens, and may have any values.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import NotStreamable
from patterndsl.ir import resolve, sets
from patterndsl.ir.expr import FALSE, TRUE, C, Expr, K, N, Q, any_of
from patterndsl.ir.interval import Env, Interval
from patterndsl.ir.invariance import invariance
from patterndsl.ir.nodes import Mix, Module, Node, Pattern, Pool
from patterndsl.ir.normal import TOKENS, lift_mix, slot_index
from patterndsl.ir.ranges import simplify_over
from patterndsl.patterns.pool import Pool as PoolPattern

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
    recent: int
    grain: int = 1
    reduce: str = "mean"

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
        """The keys that a state stands for: a piece may begin at any place of a period."""
        return self.first + self.period - 1

    @property
    def summarized(self) -> int:
        """Of how many keys, at most, it holds summaries."""
        return (self.size - self.pinned - self.recent) // self.period * self.period if self.grain > 1 else 0

    @property
    def held(self) -> int:
        """How many keys it holds one by one."""
        return self.pinned + self.recent + self.period - 1


class _Refused(Exception):
    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Which slots of a source a branch keeps, and how often if not once, without n."""

    pool: Pool
    keep: Expr
    count: Expr | None

    @property
    def slot(self) -> Expr:
        return slot_index(self.pool)

    @property
    def begins(self) -> Expr:
        """The first token of the slot."""
        return self.slot * self.pool.stride

    @property
    def domain(self) -> sets.Domain:
        return sets.Domain("present", self.pool.stride)

    def parts(self) -> tuple[Expr, ...]:
        return (self.keep,) if self.count is None else (self.keep, self.count)

    def reads_data(self) -> bool:
        """Whether run-time inputs have a say."""
        return any(e.reads_data() for e in self.parts())


@functools.lru_cache(maxsize=64)
def _of_nodes(nodes: tuple[Node, ...]) -> Horizon | tuple[str, str]:
    try:
        return _horizon([kept for node in nodes for kept in _sources(node)])
    except _Refused as refused:
        return refused.reason, refused.advice
    except sets.NotDecided as error:
        why = f"what a query reads is not known for every length, as {error.reason}"
        return why, "call it on the whole sequence"


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


def _sources(node: Node) -> Iterator[_Kept]:
    """What each branch keeps of each source."""
    if node.holds_choice:
        why = "what it keeps is chosen from all q and k"
        raise _Refused(why, "call it on the whole sequence, or leave `select`, `lsh` and the like out")
    for found in _in_branches(node, exactly=True):
        _check_inputs(found)
        _check_causal(found)
    for found in _in_branches(node, exactly=False):
        yield _without_n(found)


def _in_branches(node: Node, exactly: bool) -> Iterator[_Kept]:
    """The sources of each branch, n symbolic. Not ``exactly``: of `pool` only complete chunks, as it has."""
    lifted = lift_mix(resolve.transform(node, functools.partial(_endless, exactly=exactly)))
    for part in lifted.branches if isinstance(lifted, Mix) else (lifted,):
        for pool, term in sets.pattern_set(part).items():
            yield _Kept(pool, term.keep, term.count)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Chunks(Pattern):
    """`pool` at every length at once. Where there are fewer tokens than a chunk has, that `pool` has another
    source of slots; but it is no complete one, and so never read."""

    name = "chunks"
    pool: Any
    kept: Expr

    def keep(self, q: Expr, k: Expr, n: Expr) -> Expr:
        return FALSE

    def summaries(self, n: int | None) -> tuple[tuple[Pool, Expr], ...]:
        return ((self.pool, self.kept),)


def _endless(node: Node, exactly: bool) -> Node:
    if not isinstance(node, PoolPattern) or {x.op for x in (node.size, node.step)} != {"const"}:
        return node
    size, step = int(node.size), int(node.step)
    begins, kept = C * step, TRUE
    if exactly:
        kept = begins + size <= N if node.whole else any_of(C.eq(0), begins - step + size < N)
    return _Chunks(Pool(size, step, node.reduce, node.weight), kept)


def _check_inputs(kept: _Kept) -> None:
    """Inputs are read where the query or the key is: there a state holds them."""
    for e in (x for part in kept.parts() for x in part.walk()):
        if e.op == "input" and e.args[0] not in (Q, K):
            token = e.args[0].op == "var"  # each token of a summary
            why = "every token of a summary" if token else f"`{e.args[0]}`"
            advice = "read inputs as `x[q]` and `x[k]` of tokens, or call it on the whole sequence"
            raise _Refused(f"it reads the run-time input `{e.value}` at {why}", advice)


def _check_causal(kept: _Kept) -> None:
    last = kept.begins + (kept.pool.size - 1)
    seen = sets.smallest(kept.keep & (last - Q > 0), kept.domain, opaque=kept.reads_data())
    if seen is None:
        return
    n, q, slot = seen
    if kept.pool is TOKENS:
        advice = "restrict it to keys up to the query: `causal & (…)`"
        raise _Refused(f"of {n} tokens, query {q} reads key {slot}, which comes later", advice)
    first = slot * kept.pool.stride
    chunk = f"{first} … {first + kept.pool.size - 1}"
    why = f"of {n} tokens, query {q} reads the summary of tokens {chunk}, which is not complete"
    raise _Refused(why, "restrict it to complete chunks up to the query: `causal & (… pool(…, whole=true))`")


def _without_n(kept: _Kept) -> _Kept:
    """The same, as of the length that just holds the query, if the length makes no difference."""
    parts = kept.parts()
    own = [e.subs({"n": Q + 1}) for e in parts]
    for e, alone in zip(parts, own, strict=True):
        same = e.eq(alone) if e is kept.count else (e & alone) | (~e & ~alone)
        seen = kept.begins + (kept.pool.size - 1) <= Q
        if "n" in e.names() and not sets.is_empty(~same & seen, kept.domain, opaque=kept.reads_data()):
            advice = "use numbers that do not depend on n, and positions counted from the beginning"
            raise _Refused("what a query reads depends on the length of the whole sequence", advice)
    return _Kept(kept.pool, own[0], own[1] if len(own) > 1 else None)


def _horizon(sources: list[_Kept]) -> Horizon:
    endless = False
    for pinned in _candidates(sources):
        period = _period(sources, pinned)
        if period is None:
            continue
        for reach in _reaches(sources, pinned, period):
            if math.isinf(reach):
                endless = True
                break
            found = _summarized(sources, Horizon(pinned, int(reach), period, int(reach)))
            if found.size > MOST_KEPT:
                why = f"a state would hold {found.size:,} keys, of which at most {MOST_KEPT:,} are allowed"
                raise _Refused(why, "use smaller windows, or sizes with a smaller common multiple")
            if _pinned_alike(sources, found):
                return found
    if endless:
        advice = "bound the distance: `& local(512)`, `chunked(512, back=1)`, `segment_memory(512, 512)`"
        raise _Refused("it reads keys at any distance behind the query, so that all must be kept", advice)
    advice = "call it on the whole sequence, or use windows, chunks, segments and strides of bounded distance"
    if any(s.reads_data() for s in sources):
        advice += ", and inputs that hold no positions: distances, say"
    raise _Refused("no shift of queries and keys is found under which it stays as it is", advice)


def _reaches(sources: list[_Kept], pinned: int, period: int) -> list[float]:
    """How far back keys are read, but for the pinned ones: counted from the query, or in whole periods from
    where its period starts. Either will do; the smaller first."""

    def furthest(position: Expr) -> float:
        """The largest distance behind a position, that of the query."""
        read = [(s, s.keep & (s.begins - pinned >= 0)) for s in sources]
        behind = ((position - s.begins, e, s) for s, e in read)
        return max((0.0, *(sets.greatest(d, e, s.domain, opaque=s.reads_data()) for d, e, s in behind)))

    from_start = furthest((Q - pinned) // period * period + pinned)
    return sorted((furthest(Q), from_start if math.isinf(from_start) else -(-from_start // period) * period))


def _summarized(sources: list[_Kept], whole: Horizon) -> Horizon:
    """The same, with summaries in place of what is only read in summaries, where those of one length stand
    for all of these."""
    pools = [s.pool for s in sources if s.pool is not TOKENS]
    if not pools:
        return whole
    grain, reduces = min(p.size for p in pools), {p.reduce for p in pools}
    whole_chunks = all(p.size == p.stride and p.size % grain == 0 for p in pools)
    alone = len(reduces) == 1 and not callable(pools[0].reduce) and not any(s.reads_data() for s in sources)
    if not whole_chunks or not alone or whole.period % grain:
        return whole
    recent = _reaches([s for s in sources if s.pool is TOKENS], 0, whole.period)[0]
    (reduce,) = reduces
    return whole._replace(recent=int(min(recent, whole.reach)), grain=grain, reduce=str(reduce))


def _candidates(sources: list[_Kept]) -> list[int]:
    """How many keys at the beginning may be special: the numbers that occur are where positions are. None
    where there are summaries, which would have to be cut there."""
    if any(s.pool is not TOKENS for s in sources):
        return [0]
    numbers = {x.number for s in sources for e in s.parts() for x in e.walk() if x.number is not None}
    ends = {0} | {x + d for x in numbers for d in (0, 1)}
    return sorted(x for x in ends if 0 <= x <= MOST_PINNED)[:TRIALS]


def _period(sources: list[_Kept], pinned: int) -> int | None:
    """The shifts of queries and keys, all after the pinned ones, that change nothing."""
    return _common(sources, Interval(pinned, FAR), Interval(pinned, FAR), 1)


def _pinned_alike(sources: list[_Kept], found: Horizon) -> bool:
    """Whether queries behind all that a state holds read the pinned keys alike, a period further on."""
    if not found.pinned:
        return True
    period = _common(sources, Interval(found.first, FAR), Interval(0, found.pinned - 1), 0)
    return period is not None and found.period % period == 0


def _common(sources: list[_Kept], queries: Interval, slots: Interval, slope: int) -> int | None:
    """The shifts that change nothing, of queries and, by ``slope`` as much, of the slots' tokens."""
    periods = []
    for s in sources:
        env: Env = {"q": queries, str(s.slot.value): slots}
        slopes = {"q": Fraction(1), str(s.slot.value): Fraction(slope, s.pool.stride)}
        periods += [invariance(simplify_over(e, env), slopes, rigid=True) for e in s.parts()]
    known = [p for p in periods if p is not None]
    return math.lcm(1, *known) if len(known) == len(periods) else None
