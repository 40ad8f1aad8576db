"""The choice: into which parts a branch is split, in which layouts, in tiles of which size.

Alternatives are few and always in the same order: the branch undivided, as it comes and in each layout that
all members of its union name; and split, members in layouts that they name. All are priced in usual tiles
and in small ones, as what pays only in small tiles (a narrow window on a grid) would else not be found; then
the best of them over the sizes of tiles. A price is what the cost model makes of the tables: built for
`SMALL` queries at most, and carried on to the full length as the work has grown up to there. Sizes whose
prices differ by less than the model errs are told apart by the pairs that they compute.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from patterndsl.diagnostics import SpecError
from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Node
from patterndsl.ir.normal import TOKENS, Branch
from patterndsl.ir.table import Table
from patterndsl.plan.cost import TERMS, Rates, Work, Workload, pairs_computed, part_work, seconds
from patterndsl.plan.grouping import GROUPED
from patterndsl.plan.plan import Alternative, Decision, Part, PartChoice
from patterndsl.plan.split import Disjointness, Member, members, pieces

LEAST = 2**18  # pairs of a query and a key, below which nothing is worth a look
FEW_QUERIES = 64  # below which no order of them is worth anything
SMALL = 4096  # queries for which alternatives are priced
LARGE = 2**18  # queries for which they are priced at most, where a constant of the predicate asks for more
MOST_STRUCTURES = 5
NEAR = 1.15  # times the best price, up to which other sizes of tiles may make up for it
MOST_REFINED = 2  # structures for which sizes of tiles are tried
MOST_TILES = 10  # sizes that are tried for a part
TILES = (16, 256)  # the smallest and the largest
OWN_TILES = {"pallas_gpu": (128, 128), "pallas_tpu": (256, 256)}
"""Of backends whose kernels cut all into tiles of their own."""
STEPS = ((0, 1, 0, 1), (1, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
ALIKE = 1.25  # times the best price, up to which sizes of tiles are as good: what the model errs by (rms)
MARGIN = 0.97  # of the price of the plainest structure, below which another is worth it
PLAIN = "identity"

Structure: TypeAlias = tuple[tuple[tuple[int, ...] | None, str], ...]
"""For each part its members (None: all of them, undivided) and its layout."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """``n`` keys and ``n_q`` queries, the first at position ``offset`` (None: known at run time only)."""

    n: int
    n_q: int
    offset: int | None

    def shrunk(self, factor: int) -> Shape:
        """As many times shorter; the last query stays at the last key."""
        if self.offset is None:
            raise ValueError("queries without known positions have no shorter stretch that is like the whole")
        n, n_q = max(self.n // factor, 1), max(self.n_q // factor, 1)
        aligned = self.offset == self.n - self.n_q
        return Shape(n, n_q, n - n_q if aligned else self.offset // factor)

    def middle(self, factor: int) -> Shape:
        """The queries in the middle, as many times fewer, and all keys."""
        if self.offset is None:
            raise ValueError("queries without known positions have no middle")
        n_q = max(self.n_q // factor, 1)
        return Shape(self.n, n_q, self.offset + (self.n_q - n_q) // 2)


def default_blocks(n: int, n_q: int) -> tuple[int, int]:
    """Queries and keys in a tile: 128, or the next power of two where there are fewer."""
    return min(128, 1 << max(n_q - 1, 0).bit_length()), min(128, 1 << max(n - 1, 0).bit_length())


@dataclasses.dataclass(frozen=True)
class Question:
    """A branch to be run. ``build`` makes a part: of the terms of its sources, in a layout by name, at some
    lengths, in tiles of (queries, keys). ``names``: the layouts that a member names, best first."""

    node: Node
    branch: Branch
    shape: Shape
    workload: Workload
    rates: Rates
    blocks: tuple[int, int] | None
    build: Callable[[Branch, str, Shape, tuple[int, int]], Part]
    names: Callable[[Member], tuple[str, ...]]

    @functools.cached_property
    def members(self) -> tuple[Member, ...]:
        """Of the union that the branch's tokens are."""
        return members(self.node, self.shape.n)

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """The members as a reader knows them; none where there is but one."""
        return tuple(map(str, self.members)) if len(self.members) > 1 else ()

    @functools.cached_property
    def known_disjoint(self) -> dict[Expr, bool]:
        return {}

    @functools.cached_property
    def summaries(self) -> bool:
        return any(pool is not TOKENS for pool in self.branch)

    @functools.cached_property
    def usual(self) -> tuple[int, int]:
        """The sizes of tiles, where nothing else is known."""
        return self.blocks or default_blocks(self.shape.n, self.shape.n_q)

    def terms(self, alternative: Alternative) -> list[Branch]:
        """What each part keeps."""
        shape, found = self.shape, list[Branch]()
        groups = [p.members for p in alternative if p.members]
        disjoint = Disjointness(shape.n, shape.n_q, shape.offset or 0, self.known_disjoint)
        split = iter(pieces(self.members, groups, disjoint))
        for part in alternative:
            tokens = {TOKENS: next(split)} if part.members else {}
            if part.members is None and TOKENS in self.branch:
                tokens = {TOKENS: self.branch[TOKENS]}
            rest = {pool: term for pool, term in self.branch.items() if pool is not TOKENS and part.summaries}
            found.append({**tokens, **rest})
        return found

    def parts(self, alternative: Alternative) -> tuple[Part, ...]:
        """The parts of an alternative, built."""
        return tuple(
            self.build(branch, part.layout, self.shape, (part.block_q, part.block_k))
            for branch, part in zip(self.terms(alternative), alternative, strict=True)
        )


class Priced(NamedTuple):
    """An alternative, its predicted seconds, and the pairs that it computes in each head."""

    alternative: Alternative
    seconds: float
    pairs: float


def decide(question: Question, given: Alternative | None = None, source: str = "") -> Decision:
    """The alternative to run, or the one that is ``given``, for which ``source`` is the reason."""
    texts = question.texts
    if given is not None:
        return Decision(given, source, ((given, None),), texts)
    plain = in_tiles(question, ((None, PLAIN),), question.usual)
    why = _settled(question)
    if why:
        return Decision(plain, why, ((plain, None),), texts)
    priced = alternatives(question)
    fastest = priced[0]
    base = next(p for p in priced if _structure(p.alternative) == _structure(plain))
    why = f"the fastest of {len(priced)} by the cost model"
    if fastest.seconds > MARGIN * base.seconds and base is not fastest:
        fastest, why = base, f"nothing is more than {1 - MARGIN:.0%} faster by the cost model"
    of_structure = [p for p in priced if _structure(p.alternative) == _structure(fastest.alternative)]
    best = _leanest(of_structure)
    if best is not fastest:
        why = f"{why}, but for one that computes more pairs and is no more than {ALIKE - 1:.0%} faster"
    considered = tuple((p.alternative, p.seconds) for p in priced)
    return Decision(best.alternative, why, considered, texts, question.rates.origin)


def _structure(alternative: Alternative) -> list[tuple[object, ...]]:
    """All but the sizes of tiles."""
    return [(p.members, p.summaries, p.layout) for p in alternative]


def _leanest(priced: Sequence[Priced]) -> Priced:
    """Of those that are about as fast as the fastest, the one that computes the fewest pairs."""
    most = ALIKE * min(p.seconds for p in priced)
    return min((p for p in priced if p.seconds <= most), key=lambda p: (p.pairs, p.seconds))


def _settled(question: Question) -> str:
    """Why there is nothing to choose, if there is not."""
    shape = question.shape
    if shape.offset is None:
        return "queries have no known position, so neither layouts nor sizes of tiles would skip anything"
    if shape.n * shape.n_q < LEAST:
        return f"fewer than {LEAST:,} pairs: nothing to gain"
    if question.blocks is not None and len(structures(question)) == 1:
        backend = question.workload.backend
        own = question.blocks == OWN_TILES.get(backend)
        told = f"the tiles of {backend} are of one size" if own else "block_sizes are given"
        return f"{told}, and no member of the pattern names another layout"
    return ""


def alternatives(question: Question, every: bool = False) -> list[Priced]:
    """All that is considered, cheapest first; of equal ones the plainer first. ``every``: also the sizes of
    tiles that were tried on the way, one part at a time."""
    prices, every_structure = _Prices(question), structures(question)
    sizes = [question.usual]
    if question.blocks is None and len(every_structure) > 1:
        sizes += [(max(q // 4, min(q, TILES[0])), max(k // 4, min(k, TILES[0]))) for q, k in sizes]
    ways = [[in_tiles(question, s, blocks) for blocks in dict.fromkeys(sizes)] for s in every_structure]
    found = {a: prices.of(a) for way in ways for a in way}
    if question.blocks is None:
        of_each = [min((found[a] for a in way), key=lambda p: p.seconds) for way in ways]
        first = sorted(of_each, key=lambda p: p.seconds)
        for start in first[:MOST_REFINED]:
            if start.seconds < math.inf and start.seconds <= NEAR * first[0].seconds:
                a = start.alternative
                tried = [prices.tried(a, i) for i in range(len(a))]
                others = [tuple(sizes[0].alternative[i] for i, sizes in enumerate(tried))]
                others.append(tuple(_leanest(sizes).alternative[i] for i, sizes in enumerate(tried)))
                if every:
                    best = others[0]
                    others += [
                        (*best[:i], p.alternative[i], *best[i + 1 :])
                        for i, sizes in enumerate(tried)
                        for p in sizes
                    ]
                found |= {x: prices.of(x) for x in others if x not in found}
    return sorted(found.values(), key=lambda p: p.seconds)


def misfit(question: Question, alternative: Alternative) -> str:
    """Why a branch cannot be run so, empty where it can: each member, and the summaries, once, in orders that
    they allow."""
    known = {PLAIN, *(name for m in question.members for name in question.names(m))}
    groups = [p.members for p in alternative]
    whole = sum(g is None for g in groups)
    named = sorted(i for g in groups if g is not None for i in g)
    if whole > 1 or (named and whole) or (not whole and named != list(range(len(question.members)))):
        return f"its parts name the members {groups} of {len(question.members)}"
    if sum(p.summaries for p in alternative) != question.summaries:
        return "its parts name the summaries more than once, or not at all"
    for part in alternative:
        if part.layout not in known:
            return f"the pattern names no layout {part.layout!r}"
        if part.summaries and part.layout != PLAIN:
            return f"its summaries have no layout {part.layout!r}"
        mine = question.members if part.members is None else [question.members[i] for i in part.members]
        if part.layout == GROUPED and (len(mine) != 1 or GROUPED not in question.names(mine[0])):
            return f"its members {part.members} have no groups of tokens of their own"
    return ""


def structures(question: Question) -> list[Structure]:
    """The splits and layouts worth a look, the plainest first."""
    found: list[Structure] = [((None, PLAIN),)]
    if question.shape.n_q < FEW_QUERIES or question.shape.offset is None:
        return found
    names = [question.names(m) or (PLAIN,) for m in question.members]
    every = list(dict.fromkeys(name for x in names for name in x))
    whole = [name for name in every if all(name in x for x in names) and (name != GROUPED or len(names) == 1)]
    found += [((None, name),) for name in whole]
    found.append(_grouped([x[0] for x in names]))
    found += [_grouped([name if name in x else PLAIN for x in names]) for name in every]
    return list(dict.fromkeys(found))[:MOST_STRUCTURES]


def _grouped(layouts: Sequence[str]) -> Structure:
    """Members of one layout together, but for those with groups of tokens, which are each other's; first
    those that come as they are, as a window's tiles are best left whole."""
    order = sorted(dict.fromkeys(layouts), key=lambda name: (name != PLAIN, layouts.index(name)))
    if len(order) == 1 and (order[0] != GROUPED or len(layouts) == 1):
        return ((None, order[0]),)
    found: list[tuple[tuple[int, ...] | None, str]] = []
    for name in order:
        group = tuple(i for i, x in enumerate(layouts) if x == name)
        found += [((i,), name) for i in group] if name == GROUPED else [(group, name)]
    return tuple(found)


def in_tiles(question: Question, structure: Structure, blocks: tuple[int, int]) -> Alternative:
    """The parts of a structure, in tiles of one size. Summaries go with the first part that is in no other
    order, and have a part of their own where there is none."""
    choices = [PartChoice(group, False, layout, *blocks) for group, layout in structure]
    if question.summaries:
        at = next((i for i, c in enumerate(choices) if c.layout == PLAIN), None)
        if at is None:
            return (PartChoice((), True, PLAIN, *blocks), *choices)
        choices[at] = dataclasses.replace(choices[at], summaries=True)
    return tuple(choices)


Groups: TypeAlias = tuple[tuple[tuple[int, ...] | None, bool], ...]


class _Prices:
    """Prices of parts, remembered."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.known: dict[tuple[Groups, PartChoice, int], tuple[float, float]] = {}
        self.terms: dict[Groups, list[Branch]] = {}
        self.growth: dict[tuple[Groups, str, int, tuple[bool, ...]], Work] = {}
        """Of parts that do the same kinds of work: tiles of one size read slices where others gather."""
        self.factor = _factor(question)
        terms = question.branch.values()
        self.looks_up = any(isinstance(e.value, Table) for t in terms for e in t.keep.walk())
        """Which keys are met: those of the first queries may be anywhere."""

    def of(self, alternative: Alternative) -> Priced:
        """An alternative, with its price; infinite where it cannot be planned."""
        parts = [self.part(alternative, i) for i in range(len(alternative))]
        return Priced(alternative, sum(s for s, _ in parts), sum(pairs for _, pairs in parts))

    def part(self, alternative: Alternative, i: int) -> tuple[float, float]:
        """Predicted seconds of one part, and of merging it with those before it; and its pairs."""
        groups = tuple((p.members, p.summaries) for p in alternative)
        key = (groups, alternative[i], i)
        if key not in self.known:
            if groups not in self.terms:
                self.terms[groups] = self.question.terms(alternative)
            kind = (groups, alternative[i].layout, i)
            self.known[key] = self._price(self.terms[groups][i], alternative[i], kind)
        return self.known[key]

    def _price(self, branch: Branch, part: PartChoice, key: tuple[Groups, str, int]) -> tuple[float, float]:
        asked = part.layout != GROUPED and any(t.keep.facts() for t in branch.values())
        if asked and self.question.workload.backend == "cpu_native":
            return math.inf, math.inf  # which asks of no tile what was chosen
        try:
            work = self._work(branch, part, self.factor, later=key[2] > 0)
            if self.factor > 1:
                like = (*key, tuple(map(bool, work.values())))
                if like not in self.growth:
                    half, quarter = (self._work(branch, part, x * self.factor, key[2] > 0) for x in (2, 4))
                    self.growth[like] = _growth(work, half, quarter, self.factor)
                work = {name: amount * self.growth[like][name] for name, amount in work.items()}
        except SpecError:
            return math.inf, math.inf  # too large; or refused, as the plan itself will be
        return seconds(work, self.question.rates), pairs_computed(work)

    def _work(self, branch: Branch, part: PartChoice, factor: int, later: bool) -> Work:
        q = self.question
        shape = q.shape
        if factor > 1:
            shape = shape.middle(factor) if self.looks_up else shape.shrunk(factor)
        made = q.build(branch, part.layout, shape, (part.block_q, part.block_k))
        return part_work(made, shape.n, shape.n_q, q.workload, later=later)

    def tried(self, alternative: Alternative, i: int) -> list[Priced]:
        """The alternative with part ``i`` in tiles of the sizes that a walk from its own tries, the cheapest
        first; prices are that part's."""

        def priced(part: PartChoice) -> Priced:
            changed = (*alternative[:i], part, *alternative[i + 1 :])
            return Priced(changed, *self.part(changed, i))

        best = alternative[i]
        found = {best: priced(best)}
        while True:
            for other in _neighbours(best, self.question.shape):
                if other in found or len(found) >= MOST_TILES:
                    continue
                found[other] = priced(other)
                before, best = best, _leanest(list(found.values())).alternative[i]
                if best != before:
                    break
            else:
                return sorted(found.values(), key=lambda p: p.seconds)


def _neighbours(part: PartChoice, shape: Shape) -> list[PartChoice]:
    """The part in tiles of which both sides, or one, are twice or half as long."""
    most_q, most_k = (min(TILES[1], 1 << max(x - 1, 0).bit_length()) for x in (shape.n_q, shape.n))
    sizes = [
        (part.block_q << up_q >> down_q, part.block_k << up_k >> down_k)
        for up_q, down_q, up_k, down_k in STEPS
    ]
    return [
        dataclasses.replace(part, block_q=q, block_k=k)
        for q, k in sizes
        if min(TILES[0], most_q) <= q <= most_q and min(TILES[0], most_k) <= k <= most_k
    ]


def _factor(question: Question) -> int:
    """How many times shorter prices are taken: lengths that the predicate speaks of have to fit, unless that
    would price more than `LARGE` queries."""
    shape = question.shape
    factor = 1 << max((shape.n_q - 1).bit_length() - (SMALL - 1).bit_length(), 0)
    longest = max((c for c in _constants(question.branch) if c <= shape.n // 8), default=1)
    while factor > 1 and shape.n // factor < 8 * longest and shape.n_q // factor < LARGE // 2:
        factor //= 2
    return factor


def _constants(branch: Branch) -> set[int]:
    keep: Expr | None = branch[TOKENS].keep if TOKENS in branch else None
    return {abs(e.number) for e in keep.walk() if e.number is not None} if keep is not None else set()


def _growth(work: Work, half: Work, quarter: Work, factor: int) -> Work:
    """How many times the work is at ``factor`` times the length, if it goes on to grow from doubling to
    doubling as it did up to here. What was added is looked at, not the whole: at the edges of a grid, or
    before a window is full, there is less to do, and as much less at all lengths. Of what grows at all, as
    much is added for each tile of queries at least; but for programs, of which there may be one more for
    each doubling."""
    found = {}
    for name in TERMS:
        first, last = half[name] - quarter[name], max(work[name] - half[name], 0.0)
        least = 1.0 if name == "part" else 2.0
        ratio = min(max(last / first, least), 4.0) if first > 0 else least
        more = last * sum(ratio**i for i in range(1, factor.bit_length()))
        found[name] = 1 + more / work[name] if work[name] else 1.0
    return found
