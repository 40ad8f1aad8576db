"""The normal form that plans are made from: for each kind of slot, one predicate and one count.

A pattern tree (bound at a length, its calls, heads and layers resolved) becomes a list of branches (more
than one only under `mix`), each a mapping from a source of keys, the tokens or a `Pool`, to the predicate
over (q, k) or (q, c) that keeps a slot, and to its count. The rules are the language's, in one page of code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from patterndsl.diagnostics import MIX_PLACES, BothSummaries, MisplacedSyntax, SpecError, SummariesUnder
from patterndsl.ir.expr import FALSE, C, Expr, K, Q, all_of, any_of, as_expr, maximum, minimum, where
from patterndsl.ir.nodes import (
    Call,
    Cases,
    Complement,
    Difference,
    Intersection,
    Mix,
    Node,
    Pattern,
    Pool,
    Sum,
    SymmetricDifference,
    Union,
    Where,
)
from patterndsl.ir.quantifiers import forall

TOKENS = Pool(1, 1, "first", "one", 0)
"""The source of the tokens themselves, as chunks of one."""


@dataclasses.dataclass(frozen=True)
class Term:
    """Which slots of a source are kept, and how often each counts (None: once)."""

    keep: Expr
    count: Expr | None = None

    @property
    def amount(self) -> Expr:
        """The count as an integer, 0 where not kept."""
        return self.count if self.count is not None else where(self.keep, 1, 0)


Branch: TypeAlias = Mapping[Pool, Term]
NOTHING = Term(FALSE)


class SummaryMisuse(SpecError):
    """An operator met summaries that it has no meaning for; ``node`` is the pattern that holds them."""

    def __init__(self, operator: str, node: Node) -> None:
        if operator == "&":
            super().__init__(BothSummaries())
        else:
            super().__init__(SummariesUnder(operator=operator, pattern=str(node)))


class MixMisuse(SpecError):
    """A `mix` stands where its branches cannot be normalised apart."""

    def __init__(self, node: Node) -> None:
        super().__init__(MisplacedSyntax(what="`mix` inside another operation", advice=MIX_PLACES))


def slot_index(pool: Pool) -> Expr:
    """The variable that indexes a source's slots."""
    return K if pool is TOKENS else C


def span(pool: Pool, chunk: Expr, n: Expr) -> tuple[Expr, Expr]:
    """First and last token of a chunk."""
    first = chunk * pool.stride
    return first, minimum(first + pool.size, n) - 1


def branches(node: Node, n: int) -> list[Branch]:
    """The branches of a mixture (one, without `mix`), in normal form."""
    node = lift_mix(node)
    parts = node.branches if isinstance(node, Mix) else (node,)
    return [terms(p, as_expr(n)) for p in parts]


def lift_mix(node: Node) -> Node:
    """`mix(a, b) & c` becomes `mix(a & c, b & c)`."""
    if not any(isinstance(p, Mix) for p in walk(node)):
        return node
    if isinstance(node, Mix):
        parts: list[Node] = []
        for p in node.branches:
            lifted = lift_mix(p)
            parts.extend(lifted.branches if isinstance(lifted, Mix) else (lifted,))
        return Mix(tuple(parts))
    if isinstance(node, Intersection):
        members = [lift_mix(m) for m in node.members]
        mixes = [i for i, m in enumerate(members) if isinstance(m, Mix)]
        if len(mixes) == 1:
            i = mixes[0]
            mixed = members[i]
            assert isinstance(mixed, Mix)
            return Mix(tuple(Intersection((*members[:i], b, *members[i + 1 :])) for b in mixed.branches))
    raise MixMisuse(node)


def walk(node: Node) -> list[Node]:
    """Every distinct pattern of the tree, users before operands."""
    seen: dict[Node, None] = {}
    stack = [node]
    while stack:
        p = stack.pop()
        if p not in seen:
            seen[p] = None
            stack.extend(p.children)
    return list(seen)


def postorder(*roots: Node) -> list[Node]:
    """Every distinct pattern of the trees, operands before users."""
    done: dict[Node, None] = {}
    stack = [(p, False) for p in reversed(roots)]
    while stack:
        p, ready = stack.pop()
        if p in done:
            continue
        if ready:
            done[p] = None
        else:
            stack.append((p, True))
            stack.extend((c, False) for c in reversed(p.children))
    return list(done)


def has_summaries(node: Node) -> bool:
    """Whether the pattern can keep summaries (at any length)."""
    return node.holds_summaries


def token_terms(node: Node, n: Expr) -> Term:
    """The normal form of a pattern without summaries; n may still be symbolic."""
    if has_summaries(node):
        raise SummaryMisuse("a transform", node)
    return terms(node, n).get(TOKENS, NOTHING)


def terms(node: Node, n: Expr) -> dict[Pool, Term]:
    """The normal form of one branch. Summaries need a known n, unless their levels are given."""
    return dict(_terms(node, n))


@functools.lru_cache(maxsize=4096)
def _terms(node: Node, n: Expr) -> Mapping[Pool, Term]:
    match node:
        case Where():
            return {TOKENS: Term(node.keep.subs({"n": n}))}
        case Pattern():
            return _builtin(node, n)
        case Union():
            return _merge([terms(m, n) for m in node.members], maximum)
        case Sum():
            return _merge([terms(m, n) for m in node.members], lambda a, b: a + b, counted=True)
        case Intersection():
            return _intersection(node, n)
        case SymmetricDifference():
            return _symmetric_difference(node, n)
        case Difference():
            return _difference(node, n)
        case Complement():
            _refuse("~", node.operand)
            return {TOKENS: Term(~terms(node.operand, n).get(TOKENS, NOTHING).keep)}
        case Mix():
            raise MixMisuse(node)
        case Call() | Cases():
            raise TypeError(f"not resolved before the normal form: {node}")
    raise TypeError(f"not a pattern: {node!r}")


def _builtin(node: Pattern, n: Expr) -> dict[Pool, Term]:
    from patterndsl.patterns.transforms import Transform

    if isinstance(node, Transform):
        operand = token_terms(node.p, n)
        return {TOKENS: transformed(node, operand, n)}
    found = {TOKENS: Term(node.keep(Q, K, n))}
    if type(node).summaries is not Pattern.summaries:
        found.update((pool, Term(keep.subs({"n": n}))) for pool, keep in node.summaries(n.number))
    return found


def transformed(node: Pattern, operand: Term, n: Expr) -> Term:
    """A transform over its operand's predicate and, where it has them, counts."""
    from patterndsl.patterns.transforms import Blocks, Transform

    assert isinstance(node, Transform)
    keep = node.apply(operand.keep, Q, K, n)
    if operand.count is None or isinstance(node, Blocks):
        return Term(keep)
    return Term(keep, node.apply(operand.count, Q, K, n))


def _merge(members: Iterable[Mapping[Pool, Term]], join: object, counted: bool = False) -> dict[Pool, Term]:
    found: dict[Pool, list[Term]] = {}
    for member in members:
        for pool, term in member.items():
            if term.keep is not FALSE:
                found.setdefault(pool, []).append(term)
    merged = {}
    for pool, parts in found.items():
        keep = any_of(*(t.keep for t in parts))
        if len(parts) == 1 or not (counted or any(t.count is not None for t in parts)):
            merged[pool] = Term(keep, parts[0].count if len(parts) == 1 else None)
            continue
        amount = parts[0].amount
        for t in parts[1:]:
            amount = join(amount, t.amount)  # type: ignore[operator]
        merged[pool] = Term(keep, amount)
    return merged


def _refuse(operator: str, node: Node) -> None:
    if has_summaries(node):
        raise SummaryMisuse(operator, node)


def _intersection(node: Intersection, n: Expr) -> dict[Pool, Term]:
    holders = [m for m in node.members if has_summaries(m)]
    if len(holders) > 1:
        raise SummaryMisuse("&", holders[1])
    parts = [terms(m, n) for m in node.members]
    tokens = [p.get(TOKENS, NOTHING) for p in parts]
    keep = all_of(*(t.keep for t in tokens))
    count: Expr | None = None
    counts = [t.count for t in tokens if t.count is not None]
    if counts:
        product = counts[0]
        for c in counts[1:]:
            product = product * c
        count = where(keep, product, 0)
    found = {TOKENS: Term(keep, count)}
    if holders:
        held = node.members.index(holders[0])
        rest = all_of(*(t.keep for i, t in enumerate(tokens) if i != held))
        found.update(_restrict(parts[held], rest, n))
    return found


def _restrict(held: Mapping[Pool, Term], rest: Expr, n: Expr) -> dict[Pool, Term]:
    """The summaries of which ``rest`` keeps every token."""
    found = {}
    for pool, term in held.items():
        if pool is TOKENS:
            continue
        first, last = span(pool, C, n)
        keep = term.keep & forall("k", first, last, rest, pool.size)
        count = None if term.count is None else where(keep, term.count, 0)
        found[pool] = Term(keep, count)
    return found


def _symmetric_difference(node: SymmetricDifference, n: Expr) -> dict[Pool, Term]:
    keep = FALSE
    for m in node.members:
        _refuse("^", m)
        other = terms(m, n).get(TOKENS, NOTHING).keep
        keep = (keep & ~other) | (~keep & other)
    return {TOKENS: Term(keep)}


def _difference(node: Difference, n: Expr) -> dict[Pool, Term]:
    _refuse("-", node.right)
    left, right = terms(node.left, n), terms(node.right, n).get(TOKENS, NOTHING)
    tokens = left.get(TOKENS, NOTHING)
    if tokens.count is None and right.count is None:
        mine = Term(tokens.keep & ~right.keep)
    else:
        amount = maximum(tokens.amount - right.amount, 0)
        mine = Term(amount > 0, amount)
    return {TOKENS: mine, **_restrict(left, ~right.keep, n)}


def pairs_bound(node: Node, n: Expr) -> Expr:
    """An upper bound on the slots that a pattern keeps, as a number over n."""
    match node:
        case Union() | Sum() | SymmetricDifference():
            total = as_expr(0)
            for m in node.members:
                total = total + pairs_bound(m, n)
            return total
        case Intersection():
            least = pairs_bound(node.members[0], n)
            for m in node.members[1:]:
                least = minimum(least, pairs_bound(m, n))
            return least
        case Difference():
            return pairs_bound(node.left, n)
        case Pattern():
            bound: Expr = node.pairs(n)
            return bound
    return n * n
