"""How many slots a spec keeps: for each length, exactly where that can be had without n² work, else
between bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patterndsl.analysis.quadtree import Budget, Tally, tally
from patterndsl.analysis.unknown import without_inputs
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, as_expr
from patterndsl.ir.nodes import Mix, Node, Pool
from patterndsl.ir.normal import TOKENS, Term, branches, lift_mix, pairs_bound, walk
from patterndsl.patterns.random import Random

LARGEST = 2**28
"""The greatest number of keys or queries that is counted exactly."""
DENSE = 2**27
"""Pairs that are evaluated one by one, where the run-time inputs are given."""
LARGEST_TABLE = 2**21
"""Entries of the tables of `random` that are looked at."""
CELLS = 2**20

Heads = Sequence[tuple[tuple[int, ...], Node]]


@dataclasses.dataclass(frozen=True)
class Counted:
    """Slots kept by one head. ``pairs``: of tokens; ``levels``: of the summaries of each level;
    ``weight``: the slots times their counts, None where they depend on data. ``mix`` adds its branches
    up."""

    pairs: Tally
    levels: Mapping[int, Tally]
    weight: Tally | None

    @property
    def slots(self) -> Tally:
        return add([self.pairs, *self.levels.values()])


def add(parts: Sequence[Tally]) -> Tally:
    """The sum, row by row where all have rows."""
    bounds = [p.row_bounds for p in parts]
    low = high = None
    if all(b is not None for b in bounds):
        low = np.sum([b[0] for b in bounds if b], axis=0)
        if any(p.most is not None for p in parts):
            high = np.sum([b[1] for b in bounds if b], axis=0)
    return Tally(sum(p.lower for p in parts), sum(p.upper for p in parts), low, high)


def count(
    node: Node,
    n: int,
    n_q: int,
    first: int,
    *,
    inputs: Mapping[str, Any] | None = None,
    rows: bool = True,
    budget: Budget | None = None,
) -> Counted:
    """Slots that a pattern bound at n keeps for queries at positions ``first`` … ``first + n_q − 1``.

    Exact where no run-time inputs are read, or where ``inputs`` has them and the pairs are few; the
    budget may force bounds, and so may the size of a pattern's tables.
    """
    budget = budget or Budget()
    if max(n, n_q) > LARGEST or table_entries(node, n) > LARGEST_TABLE:
        return beyond(node, n, n_q)
    found: dict[int, list[Tally]] = {}
    weights: list[Tally] | None = []
    lifted = lift_mix(node)
    parts = lifted.branches if isinstance(lifted, Mix) else (lifted,)
    for part, branch in zip(parts, branches(node, n), strict=True):
        most = _most(part, n) if part.holds_choice and n_q == n else None
        for pool, term in branch.items():
            slots = pool.chunks(n)
            given = inputs if inputs and n_q * slots <= DENSE else None
            kept = _kept(term.keep, pool, (first, n_q, slots), given, rows, budget)
            if most is not None and most < kept.upper:
                kept = dataclasses.replace(kept, upper=max(most, kept.lower))
            found.setdefault(pool.level, []).append(kept)
            if term.count is None:
                weight: Tally | None = kept
            else:
                weight = _weight(term, pool, (first, n_q, slots), given, budget)
            weights = None if weight is None or weights is None else [*weights, weight]
    pairs = add(found.pop(0, [Tally(0, 0, np.zeros(n_q, np.int64))]))
    levels = {level: add(parts) for level, parts in sorted(found.items())}
    return Counted(pairs, levels, None if weights is None else add(weights))


def _most(node: Node, n: int) -> int | None:
    """The bound that a pattern itself gives."""
    return pairs_bound(node, as_expr(n)).number


def beyond(node: Node, n: int, n_q: int) -> Counted:
    """What the patterns' own upper bounds say, without looking at any pair."""
    node = lift_mix(node)
    softmaxes = len(node.branches) if isinstance(node, Mix) else 1
    bound = _most(node, n)
    most = 2 * n * softmaxes if bound is None else -(-bound // n)
    return Counted(Tally(0, most * n_q, None), {}, None)


def table_entries(node: Node, n: int) -> int:
    """How many entries the tables of a pattern bound at n hold; they are made when its predicate is."""
    return sum(p.entries(n) for p in walk(node) if isinstance(p, Random))


def _slot(pool: Pool) -> str:
    return "k" if pool is TOKENS else "c"


def _kept(
    keep: Expr,
    pool: Pool,
    size: tuple[int, int, int],
    inputs: Mapping[str, Any] | None,
    rows: bool,
    budget: Budget,
) -> Tally:
    if not keep.reads_data():
        return tally(keep, _slot(pool), *size, stride=pool.stride, rows=rows, budget=budget)
    if inputs is not None and not keep.facts():
        return _dense(keep, pool, size, inputs)
    most, least = (
        tally(without_inputs(keep, known), _slot(pool), *size, stride=pool.stride, rows=rows, budget=budget)
        for known in (True, False)
    )
    if least.rows is None or most.rows is None:
        return Tally(least.lower, most.upper, None)
    return Tally(least.lower, most.upper, least.rows, most.rows)


def _weight(
    term: Term, pool: Pool, size: tuple[int, int, int], inputs: Mapping[str, Any] | None, budget: Budget
) -> Tally | None:
    if not term.amount.reads_data():
        return tally(term.amount, _slot(pool), *size, stride=pool.stride, rows=False, budget=budget)
    return None if inputs is None or term.amount.facts() else _dense(term.amount, pool, size, inputs)


def _dense(e: Expr, pool: Pool, size: tuple[int, int, int], inputs: Mapping[str, Any]) -> Tally:
    first, n_q, slots = size
    rows = np.zeros(n_q, np.int64)
    at_once = max(1, CELLS // slots)
    for start in range(0, n_q, at_once):
        q = np.arange(start, min(start + at_once, n_q))
        env = {"q": first + q[:, None], _slot(pool): np.arange(slots)[None, :]}
        rows[q] = np.broadcast_to(evaluate(e, env, inputs), (len(q), slots)).sum(axis=1)
    total = int(rows.sum())
    return Tally(total, total, rows)
