"""Splits: the members of a union as disjoint pieces, each of which may have a layout and tiles of its own.

    a | b  =  a ⊎ (b − a)          c & (a | b)  =  c & a  ⊎  c & (b − a)          a + b: a, and b, as they are

A member is the intersection of all that applies to it. Pieces are computed apart and merged by log-sum-exp,
so within a union each pair must be in one piece alone: where that is not proved, the predicate of the later
piece refuses what an earlier one keeps. Addends of a sum count twice what both keep, as log-sum-exp does by
itself. Only tokens are split; summaries stay together.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from patterndsl.ir import sets
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import FALSE, Expr, N, all_of, any_of, as_expr, bound, where
from patterndsl.ir.nodes import Complement, Difference, Intersection, Node, Pattern, Sum, Union
from patterndsl.ir.normal import NOTHING, TOKENS, Term, terms
from patterndsl.passes.base import Facts, joined

MOST_MEMBERS = 12
STEPS = 40_000  # of isl for one proof of disjointness: some 50 ms
MOST_PROOFS = 3  # of a plan
POINTS = 4096
MOST_TRIPS = 64  # of a quantifier that is looked into


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of a branch's union: the intersection of its ``atoms``. ``keep``: the token pairs that it
    keeps, over q and k; ``count``: how often its addend counts them (None: once). Members of one ``addend``
    are in a union, those of different ones add up."""

    addend: int
    atoms: tuple[Node, ...]
    keep: Expr
    count: Expr | None

    def __str__(self) -> str:
        return str(joined(Intersection, list(self.atoms)))


def members(node: Node, n: int) -> tuple[Member, ...]:
    """The members of one branch, bound at n, as far as they keep tokens: one where nothing can be split, none
    where it keeps no token."""
    found: list[Member] = []
    facts = Facts()
    for i, addend in enumerate(_addends(node, facts)):
        whole = terms(addend, as_expr(n)).get(TOKENS, NOTHING)
        alternatives = _members(addend, facts, n) or [(addend,)]
        for atoms in alternatives:
            keep = whole.keep if len(alternatives) == 1 else all_of(*(_keep(a, n) for a in atoms))
            if keep is not FALSE:
                found.append(Member(i, atoms, keep, whole.count))
    if len(found) <= MOST_MEMBERS:
        return tuple(found)
    whole = terms(node, as_expr(n)).get(TOKENS, NOTHING)
    return (Member(0, (node,), whole.keep, whole.count),)


def _keep(node: Node, n: int) -> Expr:
    return terms(node, as_expr(n)).get(TOKENS, NOTHING).keep


def _addends(node: Node, facts: Facts) -> list[Node]:
    """``(a + b) & c`` adds up ``a & c`` and ``b & c``."""
    if isinstance(node, Sum):
        return [x for m in node.members for x in _addends(m, facts)]
    if isinstance(node, Intersection):
        below = [_addends(m, facts) for m in node.members]
        if sum(len(b) > 1 for b in below) == 1 and np.prod([len(b) for b in below]) <= MOST_MEMBERS:
            return [Intersection(tuple(atoms)) for atoms in itertools.product(*below)]
    return [node]


def _members(node: Node, facts: Facts, n: int) -> list[tuple[Node, ...]]:
    """The conjunctions whose union the token pairs of a pattern are; nothing where they are too many."""
    match node:
        case Union() | Sum():  # as sets of pairs: counts are the addend's
            found = [x for m in node.members for x in _members(m, facts, n)]
        case Intersection():
            below = [_members(m, facts, n) for m in node.members]
            if np.prod([len(b) for b in below]) > MOST_MEMBERS:
                return [(node,)]
            found = [
                tuple(dict.fromkeys(itertools.chain.from_iterable(parts)))
                for parts in itertools.product(*below)
            ]
        case Difference() if facts.is_set(node.left) and facts.is_set(node.right):
            found = [(*atoms, Complement(node.right)) for atoms in _members(node.left, facts, n)]
        case Pattern() if node.members(n) != (node,):
            found = [x for m in node.members(n) for x in _members(m, facts, n)]
        case _:
            found = [(node,)]
    return list(dict.fromkeys(found)) if len(found) <= MOST_MEMBERS else [(node,)]


class Disjointness:
    """Answers, within bounds, whether two members share no pair at n keys and the queries of a plan.

    ``known`` are answers of before, by the conjunction of the predicates; they count towards the bounds as if
    they were found anew, so that answers do not depend on them.
    """

    def __init__(self, n: int, n_q: int, offset: int, known: dict[Expr, bool]) -> None:
        self.n, self.n_q, self.offset, self.known = n, n_q, offset, known
        self.left = MOST_PROOFS

    def proved(self, a: Expr, b: Expr) -> bool:
        """No pair satisfies both; False where that is not known."""
        both = a & b
        if both is FALSE or _apart(a, b):
            return True
        if self.left <= 0 or both.reads_data() or any(_trips(e) > MOST_TRIPS for e in both.walk()):
            return False
        if both not in self.known:
            self.known[both] = not self._seen(both) and self._empty(both)
        self.left -= 1
        return self.known[both]

    def _seen(self, both: Expr) -> bool:
        """Some pair at random, near the diagonal or anywhere, satisfies it."""
        rng = np.random.default_rng(0)
        k = rng.integers(0, self.n, POINTS)
        near = np.clip(k + rng.integers(-64, 65, POINTS), self.offset, self.offset + self.n_q - 1)
        q = np.where(rng.random(POINTS) < 0.5, near, self.offset + rng.integers(0, self.n_q, POINTS))
        with np.errstate(all="ignore"):
            return bool(np.any(evaluate(both, {"q": q, "k": k})))

    def _empty(self, both: Expr) -> bool:
        try:
            return sets.is_empty(both, sets.Domain(lengths=N.eq(self.n)), opaque=True, budget=STEPS)
        except sets.NotDecided:
            return False


def _apart(a: Expr, b: Expr) -> bool:
    """Some number has no value that both allow."""
    found = _limits(a)
    return any(
        x in found and (low > found[x][1] or high < found[x][0]) for x, (low, high) in _limits(b).items()
    )


def _limits(e: Expr) -> dict[Expr, tuple[float, float]]:
    """The least and the largest value of numbers that each conjunct alone compares with constants."""
    found: dict[Expr, tuple[float, float]] = {}
    for conjunct in _conjuncts(e):
        each = [_limit(c) for c in (conjunct.args if conjunct.op == "or" else (conjunct,))]
        known = [x for x in each if x is not None]
        if len(known) < len(each) or len({x for x, _, _ in known}) > 1:
            continue
        number = known[0][0]
        low, high = found.get(number, (-math.inf, math.inf))
        found[number] = max(low, min(x[1] for x in known)), min(high, max(x[2] for x in known))
    return found


def _limit(e: Expr) -> tuple[Expr, float, float] | None:
    if e.op not in ("eq", "le", "lt"):
        return None
    (a, b), strict = e.args, int(e.op == "lt")
    if b.number is not None:
        return a, b.number if e.op == "eq" else -math.inf, b.number - strict
    if a.number is not None:
        return b, a.number + strict, a.number if e.op == "eq" else math.inf
    return None


def _trips(e: Expr) -> int:
    return bound(e)[1] if e.op in ("forall", "exists") else 0


def pieces(found: Sequence[Member], groups: Sequence[Sequence[int]], disjoint: Disjointness) -> list[Term]:
    """The token pairs and counts of each group of members.

    Together the groups name each member once. Those of later groups lose what earlier ones of the same
    addend keep.
    """
    result = []
    for g, group in enumerate(groups):
        earlier = [found[j] for other in groups[:g] for j in other]
        by_addend: dict[int, list[Expr]] = {}
        for i in group:
            m = found[i]
            taken = [e for e in earlier if e.addend == m.addend and not disjoint.proved(m.keep, e.keep)]
            by_addend.setdefault(m.addend, []).append(all_of(m.keep, *(~_beyond(e, m) for e in taken)))
        counts = {found[i].addend: found[i].count for i in group}
        result.append(_added([Term(any_of(*keeps), counts[a]) for a, keeps in by_addend.items()]))
    return result


def _beyond(earlier: Member, m: Member) -> Expr:
    """What the earlier member asks of a pair, given that ``m`` keeps it: what both ask holds anyway."""
    held = _conjuncts(m.keep)
    return all_of(*(e for e in _conjuncts(earlier.keep) if e not in held))


def _conjuncts(e: Expr) -> tuple[Expr, ...]:
    return e.args if e.op == "and" else (e,)


def _added(parts: list[Term]) -> Term:
    """Members of several addends: their counts add up."""
    if len(parts) == 1:
        return parts[0]
    amounts = [where(p.keep, 1 if p.count is None else p.count, 0) for p in parts]
    return Term(any_of(*(p.keep for p in parts)), functools.reduce(lambda a, b: a + b, amounts))
