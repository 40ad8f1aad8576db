"""From a pattern, bound at a length, to its plan."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from patterndsl.diagnostics import PlanTooLarge, SpecError
from patterndsl.ir.nodes import Fact, Mix, Node, Pattern, Pool
from patterndsl.ir.normal import Branch, Term, branches, lift_mix
from patterndsl.plan.choose import OWN_TILES, Question, Shape, decide, default_blocks, misfit
from patterndsl.plan.cost import Rates, Workload
from patterndsl.plan.grouping import GROUPED, grouping_of
from patterndsl.plan.grouping import facts as grouped_facts
from patterndsl.plan.orders import order_of
from patterndsl.plan.parts import part_in
from patterndsl.plan.plan import Alternative, BranchPlan, Decision, HeadGroup, Part, Plan, Source
from patterndsl.plan.rates import rates_of
from patterndsl.plan.split import Member
from patterndsl.plan.tables import TABLE_LIMIT, Axis

BYTES_PER_ROW = 64  # of tables, for each tile of queries: its number, counts and starts
Given: TypeAlias = tuple[tuple[Alternative, ...], ...]
"""For each pattern, in order, and each of its branches: how it is to be run."""


def build_plan(
    patterns: Sequence[tuple[Sequence[int], Node]],
    *,
    n: int,
    n_q: int,
    q_offset: int | None,
    num_heads: int,
    block_sizes: tuple[int, int] | None = None,
    workload: Workload | None = None,
    rates: Rates | None = None,
    given: Given | None = None,
    source: str = "given",
) -> Plan:
    """The plan of a pattern for each query head, at n keys and n_q queries.

    ``patterns``: pairs of heads and their pattern, bound at n (`ir.resolve.at_length`), without calls and
    cases; together they name each of ``num_heads`` heads once. ``q_offset``: the position of the first query;
    None where it is known only at run time. ``block_sizes``: queries and keys in a tile; the cost model
    chooses them unless given. ``workload``: the operands for which it chooses, and ``rates`` its prices.
    ``given``: alternatives to be taken unseen, and the ``source`` that they come from.

    The same arguments give the same object. Raises SpecError: PlanTooLarge before a plan is built that would
    take more than `TABLE_LIMIT` bytes, ValueTooLarge and DivisionByZero where a predicate has no value in
    int32 at some position.
    """
    found = tuple((tuple(heads), node) for heads, node in patterns)
    workload = workload or Workload(heads=num_heads, kv_heads=num_heads)
    rates = rates or rates_of(workload.platform, workload.backend)
    block_sizes = block_sizes or OWN_TILES.get(workload.backend)
    return _plan(found, Shape(n, n_q, q_offset), num_heads, block_sizes, workload, rates, given, source)


@functools.lru_cache(maxsize=64)
def _plan(
    patterns: tuple[tuple[tuple[int, ...], Node], ...],
    shape: Shape,
    num_heads: int,
    blocks: tuple[int, int] | None,
    workload: Workload,
    rates: Rates,
    given: Given | None,
    source: str,
) -> Plan:
    usual = blocks or default_blocks(shape.n, shape.n_q)
    _refuse_rows(shape, usual[0])
    by_node: dict[Node, list[int]] = {}
    for heads, node in patterns:
        by_node.setdefault(node, []).extend(heads)
    if given is not None:
        check_given(given, list(by_node), shape, workload)
    groups = []
    for i, (node, members) in enumerate(by_node.items()):
        mine = workload.of_heads(len(members))
        parts = branch_plans(node, shape, blocks, mine, rates, None if given is None else given[i], source)
        groups.append(HeadGroup(tuple(sorted(members)), node, parts))
    sources = [s for g in groups for b in g.branches for p in b.parts for s in p.sources]
    inputs = {name for s in sources for name in _inputs(s)}
    n, n_q, q_offset = shape.n, shape.n_q, shape.offset
    facts = tuple(
        dict.fromkeys(fact for g in groups for b in g.branches for p in b.parts for fact in _facts(p))
    )
    return Plan(n, n_q, q_offset, num_heads, *usual, tuple(groups), tuple(sorted(inputs)), facts)


def forget_plans() -> None:
    """Empty the caches of plans."""
    _plan.cache_clear()
    branch_plans.cache_clear()
    _part.cache_clear()


def _inputs(source: Source) -> frozenset[str]:
    count = source.term.count
    return source.term.keep.inputs() | (count.inputs() if count is not None else frozenset())


def _facts(part: Part) -> list[Fact]:
    terms = [s.term for s in part.sources]
    found = [e for t in terms for e in (t.keep, t.count) if e is not None]
    own = frozenset() if part.grouping is None else grouped_facts(part.grouping)
    return sorted(own.union(*(e.facts() for e in found)), key=repr)


def _refuse_rows(shape: Shape, block_q: int) -> None:
    needed = -(-shape.n_q // block_q) * BYTES_PER_ROW
    if needed > TABLE_LIMIT:
        refuse("the plan's tables", needed)


def refuse(what: str, needed: int) -> NoReturn:
    """Raise the SpecError of a plan that would take so many bytes."""
    advice = "a smaller n, or larger tiles of queries (block_sizes=…), need less"
    raise SpecError(PlanTooLarge(what=what, needed=needed, limit=TABLE_LIMIT, advice=advice))


@functools.lru_cache(maxsize=64)
def branch_plans(
    node: Node,
    shape: Shape,
    blocks: tuple[int, int] | None,
    workload: Workload,
    rates: Rates,
    given: tuple[Alternative, ...] | None = None,
    source: str = "given",
) -> tuple[BranchPlan, ...]:
    """The branches of one pattern, planned. Cached: nodes are hash-consed, so equal patterns are found
    again.
    """
    asked = questions(node, shape, blocks, workload, rates)
    if given is not None:
        decisions = [decide(q, a, source) for q, a in zip(asked, given, strict=True)]
    else:
        decisions = [decide(q) for q in asked]
    return tuple(_branch_plan(q, d) for q, d in zip(asked, decisions, strict=True))


def check_given(given: Given, nodes: Sequence[Node], shape: Shape, workload: Workload) -> None:
    """Raise ValueError where alternatives do not fit the patterns, which are different from each other."""
    if len(given) != len(nodes):
        raise ValueError(f"it has {len(given)} patterns, not {len(nodes)}")
    rates = rates_of(workload.platform, workload.backend)
    for alternatives, node in zip(given, nodes, strict=True):
        asked = questions(node, shape, None, workload, rates)
        if len(alternatives) != len(asked):
            raise ValueError(f"it has {len(alternatives)} branches, not {len(asked)}")
        for question, alternative in zip(asked, alternatives, strict=True):
            why = misfit(question, alternative)
            if why:
                raise ValueError(why)


def questions(
    node: Node, shape: Shape, blocks: tuple[int, int] | None, workload: Workload, rates: Rates
) -> list[Question]:
    """How to run each branch of a pattern, to be decided."""
    lifted = lift_mix(node)
    nodes = lifted.branches if isinstance(lifted, Mix) else (lifted,)
    names = functools.partial(layout_names, n=shape.n)
    return [
        Question(p, b, shape, workload, rates, blocks, make_part, names)
        for p, b in zip(nodes, branches(node, shape.n), strict=True)
    ]


def _branch_plan(question: Question, decision: Decision) -> BranchPlan:
    """The branch as decided or, where that takes too much memory, the next best."""
    others = [a for a, price in decision.considered if a != decision.chosen and price != math.inf]
    refused: SpecError | None = None
    for alternative in (decision.chosen, *others):
        try:
            parts = question.parts(alternative)
        except SpecError as error:
            if not any(isinstance(d, PlanTooLarge) for d in error.diagnostics):
                raise
            refused = refused or error
            continue
        if refused is not None:
            why = f"{decision.reason} that does not take too much memory"
            decision = dataclasses.replace(decision, chosen=alternative, reason=why)
        return BranchPlan(parts, decision)
    assert refused is not None
    raise refused


def layout_names(member: Member, n: int) -> tuple[str, ...]:
    """The orders that the patterns of a member name at n keys, best first."""
    orders = [o for p in member.atoms if isinstance(p, Pattern) for o in p.layouts(n)]
    grouped = [] if grouping_of(member.keep, n) is None else [GROUPED]
    return tuple(dict.fromkeys([*grouped, *map(str, orders)]))


def make_part(branch: Branch, layout: str, shape: Shape, blocks: tuple[int, int]) -> Part:
    """A part of a branch, or of a piece of one."""
    _refuse_rows(shape, blocks[0])
    return _part(tuple(branch.items()), layout, shape, blocks)


@functools.lru_cache(maxsize=256)
def _part(terms: tuple[tuple[Pool, Term], ...], layout: str, shape: Shape, blocks: tuple[int, int]) -> Part:
    return part_in(
        dict(terms), order_of(layout), Axis(shape.offset, shape.n_q, blocks[0]), shape.n, blocks[1]
    )
