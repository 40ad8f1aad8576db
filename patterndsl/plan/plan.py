"""The plan: what a backend sees of a pattern at given lengths. Arrays are NumPy; nothing here imports JAX.

    Plan ─ HeadGroup* ─ BranchPlan* ─ Part* ─ RowGroup* ─ Segment*

Heads that come out with the same pattern share a `HeadGroup`. A branch is one softmax (several only under
`mix`). A part is a set of (query, slot) pairs under one layout; parts are disjoint and merged by log-sum-exp.
A part's query tiles are grouped by schedule: a `RowGroup` has one program, its segments, and for each of its
tiles the blocks of slots that the program visits.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Fact, Node, Pool
from patterndsl.ir.normal import Term
from patterndsl.plan.periodic import Periodic

Int32 = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where slots come from: the tokens (`ir.normal.TOKENS`) or the summaries of a pool.

    ``term``: the predicate over ``q`` and the slot's index (``k`` for tokens, ``c`` for chunks), n known; and
    the count (None: every kept slot counts once). It is simplified for the plan's own queries and the slots
    that exist: of other positions (padding) it says nothing, so they must be masked. Every value on the way
    to it fits int32. ``slots``: how many there are; of tokens in a layout, its places, the empty ones too.
    """

    pool: Pool
    term: Term
    slots: int


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Blocks of ``block`` consecutive slots of one source that each row of a group visits.

    ``starts`` int32 [rows, width]: the first slot of each block, a multiple of ``block``; ``counts`` int32
    [rows]: how many of them are real (the others repeat a valid start and must contribute nothing). Within a
    row, starts rise. Both are kept as rules (`Periodic`): where rows see the same blocks relative to their
    own tile, one list of offsets stands for all of them, and an executor makes the rest on the device.
    ``contiguous``: block j starts at ``starts[:, 0] + j · block``, so that one slice reads
    them all; only that first column is stored (``starts`` is [rows, 1]), and blocks from ``counts`` on may
    lie beyond the last slot. ``partial``: for each of the ``width`` columns, whether the predicate must be
    applied. Where False, every pair of a real query and a slot of that block is kept, exists, and counts
    once, in every row of the group. ``step``: 0 where all blocks are taken at once; else the row loops over
    ``counts[row]`` blocks, ``step`` at a time, and ``partial`` is the same for all columns. A source of
    summaries is usually read with ``block=1``: gathered slots.
    """

    source: int
    block: int
    starts_by_row: Periodic
    counts_by_row: Periodic
    contiguous: bool
    partial: tuple[bool, ...]
    step: int = 0

    @property
    def starts(self) -> Int32:
        """The first slots of the blocks, made from their rule."""
        return self.starts_by_row.array()

    @property
    def counts(self) -> Int32:
        """The numbers of real blocks, made from their rule."""
        return self.counts_by_row.array()

    @property
    def width(self) -> int:
        """The most blocks that a row visits."""
        return len(self.partial)


@dataclasses.dataclass(frozen=True, eq=False)
class RowGroup:
    """Query tiles with one program. ``tiles`` int32 [rows]: numbers of tiles of the part's ``block_q``
    queries, kept as a rule. A tile is in one group of a part at most; tiles in none keep nothing."""

    tiles_by_row: Periodic
    segments: tuple[Segment, ...]

    @property
    def tiles(self) -> Int32:
        """The numbers of the tiles, made from their rule."""
        return self.tiles_by_row.array()


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The order in which a part sees queries and tokens, so that what it keeps lies in dense tiles.

    ``queries`` int32 [places], a multiple of the part's ``block_q`` places: the index (0 … n_q − 1) of the
    query at each place, each query once, and −1 where a place is empty. ``tokens`` int32 [places]: likewise
    the token (0 … n − 1) at each place. None: as they come. Tiles, starts and `Source.slots` of a part count
    places; its predicates speak of positions all the same. Summaries are never reordered.
    """

    name: str = "identity"
    queries: Int32 | None = None
    tokens: Int32 | None = None

    @functools.cached_property
    def query_places(self) -> Int32 | None:
        """The inverse of ``queries``: int32 [n_q], the place of each query."""
        return None if self.queries is None else _inverse(self.queries)

    @functools.cached_property
    def token_places(self) -> Int32 | None:
        """The inverse of ``tokens``: int32 [n], the place of each token."""
        return None if self.tokens is None else _inverse(self.tokens)


IDENTITY = Layout()


def _inverse(order: Int32) -> Int32:
    places = np.flatnonzero(order >= 0).astype(np.int32)
    found = np.empty_like(places)
    found[order[places]] = places
    return found


@dataclasses.dataclass(frozen=True)
class Membership:
    """Groups that take queries and tokens at run time, each of them into any number of groups, or none.

    Group g, 0 … ``groups`` − 1, has a query where ``queries[row, g]`` is 1, with ``row`` over ``q``, and
    token k where ``keys[k, g]`` is. A pair that several groups have counts once.
    """

    queries: Fact
    keys: Fact
    row: Expr
    groups: int


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Groups of tokens, of which each query names some at run time (`plan.grouping`).

    The i-th of ``choices`` groups that a query looks at is ``fact[row, index]``, where ``row`` is over ``q``
    and ``index`` over ``i``; a group that it names twice counts once, and a number that no group has is none.
    ``key``: over ``k``, the group of a token, 0 … ``groups`` − 1. ``size``: group g is the tokens from g ·
    size on; None where which they are is known at run time only.
    """

    fact: Fact
    row: Expr
    index: Expr
    choices: int
    key: Expr
    groups: int
    size: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Disjoint from its siblings: no (query, slot) pair is in two. ``block_q``: queries in a tile.

    ``grouping``: there are no ``rows`` then, and one source, the tokens; of a query and a token that a group
    brings together, its term says whether they are kept. Groups are met ``block_k`` tokens at a time.
    """

    layout: Layout
    sources: tuple[Source, ...]
    rows: tuple[RowGroup, ...]
    block_q: int
    grouping: Grouping | Membership | None = None
    block_k: int = 0


@dataclasses.dataclass(frozen=True)
class PartChoice:
    """What a part is to be. ``members``: of the branch's union, by number (`plan.split.members`); None for
    all of its tokens, undivided. ``summaries``: whether it has the branch's summaries."""

    members: tuple[int, ...] | None
    summaries: bool
    layout: str
    block_q: int
    block_k: int


Alternative: TypeAlias = tuple[PartChoice, ...]
"""One way to run a branch: its parts."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """How a branch is run, and why. ``considered``: the alternatives with their predicted seconds (of the
    forward pass; None where there was no need to know), best first. ``members``: the members of its union,
    as texts. ``rates``: whose the prices are."""

    chosen: Alternative
    reason: str
    considered: tuple[tuple[Alternative, float | None], ...]
    members: tuple[str, ...] = ()
    rates: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class BranchPlan:
    """One softmax."""

    parts: tuple[Part, ...]
    decision: Decision | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class HeadGroup:
    """The query heads (ascending) that share a pattern; ``node`` is that pattern, bound at n, and
    ``branches`` how it runs."""

    heads: tuple[int, ...]
    node: Node
    branches: tuple[BranchPlan, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A pattern at n keys and n_q queries. ``q_offset``: the position of the first query, None where it is
    only known at run time (then no tile is judged by the query's position). ``block_q``, ``block_k``:
    queries and keys in a tile, where a part says nothing else. ``inputs``, ``facts``: what its predicates
    read at run time."""

    n: int
    n_q: int
    q_offset: int | None
    num_heads: int
    block_q: int
    block_k: int
    groups: tuple[HeadGroup, ...]
    inputs: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()

    @functools.cached_property
    def facts_by_tiles(self) -> tuple[Fact, ...]:
        """Facts that parts without groups read: which of their tiles keep something is known late."""
        parts = [p for g in self.groups for b in g.branches for p in b.parts if p.grouping is None]
        terms = [e for p in parts for s in p.sources for e in (s.term.keep, s.term.count) if e is not None]
        return tuple(fact for fact in self.facts if any(fact in e.facts() for e in terms))

    def __repr__(self) -> str:
        from patterndsl.plan.stats import summary

        return summary(self)

    def stats(self) -> PlanStats:
        """Counts of tiles and pairs (see `PlanStats`)."""
        from patterndsl.plan.stats import plan_stats

        return plan_stats(self)

    def explain(self) -> str:
        """What the plan does and why, as a readable text."""
        from patterndsl.plan.stats import explain

        return explain(self)


@dataclasses.dataclass(frozen=True)
class PlanStats:
    """Over all heads: pairs of (query, slot) that the plan ``computed``, tiles by kind, bytes of its tables,
    and for each source (level 0 is the tokens) the pairs computed."""

    computed: int
    full_blocks: int
    partial_blocks: int
    row_groups: int
    table_bytes: int
    computed_by_level: dict[int, int]

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
