"""Exact integer sets: predicates decided for every n at once (isl, the library behind polyhedral compilers).

A predicate becomes a set of points (n, q, k): n ≥ 1 keys, 0 ≤ k < n, q any integer or 0 ≤ q < n (`Domain`).
Exact for quasi-affine predicates: + − and × by a constant, // and % by a constant, abs, min, max, if,
comparisons, and, or, not, bounded quantifiers. What is not raises `NotQuasiAffine`, unless it may stand for
any value at all (``opaque``), as when only a proof counts. isl is given a budget of steps a question and
raises `NotDecided` beyond it; it is imported when the first question is asked.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

from patterndsl.ir.expr import (
    FALSE,
    INT_OPS,
    Expr,
    K,
    N,
    Q,
    Unknown,
    all_of,
    bound,
)
from patterndsl.ir.nodes import Node, Pattern, Pool, Tokens
from patterndsl.ir.normal import TOKENS, Term, has_summaries, terms, walk

BUDGET = 1_000_000
"""Steps of isl for one question: about a second."""

_POSITION = {"n": 0, "q": 1, "k": 2, "c": 2}
Point = tuple[int, int, int]


class NotDecided(Exception):
    """There is no exact answer; ``reason`` says why, as the end of a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotQuasiAffine(NotDecided):
    """The predicate is outside what exact integer sets describe."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """Where predicates are compared: ``queries`` anywhere or only at 0 … n − 1; the slots of a pool of that
    ``stride``; the lengths n at which ``lengths`` holds."""

    queries: Literal["anywhere", "present"] = "anywhere"
    stride: int = 1
    lengths: Expr = N >= 1


def is_empty(
    e: Expr, domain: Domain | None = None, *, opaque: bool = False, budget: int | None = None
) -> bool:
    """No pair satisfies ``e``, at any n. ``budget``: other than the usual steps."""
    return bool(_Sets((e,), domain, opaque, budget).ask(lambda s: s[0].is_empty()))


def is_subset(a: Expr, b: Expr, domain: Domain | None = None, *, opaque: bool = False) -> bool:
    """Every pair that satisfies ``a`` satisfies ``b``, at every n."""
    return bool(_Sets((a, b), domain, opaque).ask(lambda s: s[0].is_subset(s[1])))


def is_equal(a: Expr, b: Expr, domain: Domain | None = None, *, opaque: bool = False) -> bool:
    """The same pairs satisfy both, at every n."""
    return bool(_Sets((a, b), domain, opaque).ask(lambda s: s[0].is_equal(s[1])))


def is_disjoint(a: Expr, b: Expr, domain: Domain | None = None, *, opaque: bool = False) -> bool:
    """No pair satisfies both, at any n."""
    return bool(_Sets((a, b), domain, opaque).ask(lambda s: s[0].is_disjoint(s[1])))


def smallest(e: Expr, domain: Domain | None = None, *, opaque: bool = False) -> Point | None:
    """The point (n, q, k) that satisfies ``e`` with the smallest n, then q, then k (queries at 0 … n − 1
    first, then those after, then those before). None where there is none."""
    sets = _Sets((e,), domain, opaque)
    return sets.ask(lambda s: sets.smallest(s[0]))  # type: ignore[no-any-return]


def greatest(value: Expr, e: Expr, domain: Domain | None = None, *, opaque: bool = False) -> float:
    """The largest ``value`` (quasi-affine in n, q and the slot) among the points that satisfy ``e``: −inf
    where there are none, inf where there is no bound."""
    sets = _Sets((e,), domain, opaque)
    found = sets.ask(lambda s: sets.translate(value).intersect_domain(s[0]).max_val())
    if found.is_infty() or found.is_nan():  # not a number: the maximum of nothing
        return float("inf" if found.is_infty() else "-inf")
    return int(found.to_python())


def pairs(e: Expr, n: int, queries: range) -> set[tuple[int, int]]:
    """The pairs (q, k) of the exact set at one small n, one by one, for comparison with a dense mask."""
    found: set[tuple[int, int]] = set()

    def visit(point: Any) -> None:
        q, k = (int(point.get_coordinate_val(sets.isl.dim_type.set, i).to_python()) for i in (1, 2))
        found.add((q, k))

    here = all_of(e, N.eq(n), queries.start <= Q, queries.stop > Q)
    sets = _Sets((here,), None, False)
    sets.ask(lambda s: sets.plain(s[0]).foreach_point(visit))
    return found


def notation(e: Expr, domain: Domain | None = None) -> str:
    """The set of the points (n, q, k) that satisfy ``e``, as isl writes it. Raises `NotDecided`."""
    sets = _Sets((e,), domain, False)
    return str(sets.ask(lambda s: sets.plain(s[0]).coalesce().to_str()))


def pattern_set(node: Node) -> dict[Pool, Term]:
    """The normal form with n symbolic: for each source of slots its predicate over (q, k) or (q, c).

    Raises `NotQuasiAffine` where n must be known first.
    """
    try:
        return terms(node, N)
    except Unknown as error:
        raise NotQuasiAffine(_unknown(node) or str(error)) from None


def _unknown(node: Node) -> str:
    """Which pattern has to know n first."""
    for p in walk(node):
        try:
            if isinstance(p, Pattern):
                p.keep(Q, K, N)
                p.summaries(None)
        except Unknown:
            if not p.children:
                what = "the summaries of" if has_summaries(p) else "the pairs of"
                return f"{what} `{p}` are not known before n is"
    return ""


def token_set(node: Node) -> Expr:
    """The predicate of the token pairs kept, n symbolic. Raises `NotQuasiAffine`."""
    found = pattern_set(node).get(TOKENS)
    return FALSE if found is None else found.keep


def lengths(node: Node) -> Expr:
    """The lengths n at which the pattern's arguments make sense: tokens exist, grids fit, sizes are large
    enough."""
    from patterndsl.patterns.base import parameters

    tests = [N >= 1]
    for p in walk(node):
        if not isinstance(p, Pattern):
            continue
        for parameter in parameters(type(p)):
            value, least = getattr(p, parameter.name), parameter.kind.least
            if isinstance(value, Tokens):
                tests += [_exists(i) for i in value.items if isinstance(i, Expr)]
            elif parameter.name == "shape":
                places = value[0]
                for extent in value[1:]:
                    places = places * extent
                tests.append(N.eq(places))
            elif isinstance(value, Expr) and least is not None:
                tests.append(value >= least)
    return all_of(*tests)


def _exists(token: Expr) -> Expr:
    return all_of(token >= -N, token < N)


# -- translation -----------------------------------------------------------------------------------------


class _Sets:
    """The sets of some predicates in one space: n, q and the slot, then what is bound or opaque."""

    def __init__(
        self,
        predicates: tuple[Expr, ...],
        domain: Domain | None,
        opaque: bool,
        budget: int | None = None,
    ) -> None:
        self.budget = BUDGET if budget is None else budget
        self.predicates, self.domain = predicates, domain or Domain()
        self.inside = self._inside()
        self.extra: dict[Expr, int] = {}
        for e in (self.inside, *predicates):
            for x in dimensions(e, opaque):
                self.extra.setdefault(x, 3 + len(self.extra))

    def _inside(self) -> Expr:
        first = K * self.domain.stride
        tests = [N >= 1, self.domain.lengths, K >= 0, first < N]
        return all_of(*tests, *([Q >= 0, Q < N] if self.domain.queries == "present" else []))

    def ask(self, question: Callable[[list[Any]], Any]) -> Any:
        """The answer of ``question`` over the predicates' sets. Raises `NotDecided` past the budget."""
        import islpy as isl

        self.isl, self.ctx = isl, isl.Context()
        self.ctx.set_max_operations(self.budget)
        names = [f"x{i}" for i in range(3 + len(self.extra))]
        space = isl.Space.create_from_names(self.ctx, set=names)
        self.local, self.universe = isl.LocalSpace.from_space(space), isl.Set.universe(space)
        self.done: dict[Expr, Any] = {}
        try:
            inside = self.translate(self.inside)
            return question([self.translate(e).intersect(inside) for e in self.predicates])
        except isl.Error as error:
            if "maximal number of operations" in str(error):
                raise NotDecided("the sets are too intricate to compare") from None
            raise

    def translate(self, e: Expr) -> Any:
        """The set, or the quasi-affine function, of an expression."""
        stack = [(e, False)]
        while stack:
            x, ready = stack.pop()
            if x in self.done:
                continue
            if ready or x in self.extra:  # what is opaque is not looked into
                self.done[x] = self._operation(x)
            else:
                stack.append((x, True))
                stack.extend((a, False) for a in x.args)
        return self.done[e]

    def _operation(self, x: Expr) -> Any:
        if x in self.extra:
            value = self._dimension(self.extra[x])
            return value.eq_set(self._number(1)) if x.sort == "bool" else value
        a = [self.done[y] for y in x.args]
        match x.op:
            case "const":
                return self._number(int(x))
            case "bool":
                return self.universe if x.value else self.universe.complement()
            case "var":
                return self._dimension(_POSITION[str(x.value)])
            case "floordiv" | "div":
                quotient = _divide(a[0], self._value(int(x.args[1])))
                return quotient.floor() if x.op == "floordiv" else quotient
            case "mod":
                divisor = self._value(int(x.args[1]))
                return a[0].sub(_divide(a[0], divisor).floor().scale_val(divisor))
            case "not":
                return a[0].complement()
            case "and" | "or":
                join = self.isl.Set.intersect if x.op == "and" else self.isl.Set.union
                return functools.reduce(join, a).coalesce()
            case "if":
                return self._case(*a)
            case "forall" | "exists":
                return self._quantifier(x, *a)
        return _FUNCTIONS[x.op](*a)

    def _case(self, condition: Any, yes: Any, no: Any) -> Any:
        other = condition.complement()
        if isinstance(yes, self.isl.Set):
            return yes.intersect(condition).union(no.intersect(other))
        return yes.intersect_domain(condition).union_add(no.intersect_domain(other))

    def _quantifier(self, x: Expr, first: Any, last: Any, body: Any) -> Any:
        position = self.extra[Expr("var", (), bound(x)[0])]
        at = self._dimension(position)
        reach = at.ge_set(first).intersect(at.le_set(last))
        if x.op == "exists":
            return body.intersect(reach).eliminate(self.isl.dim_type.set, position, 1).coalesce()
        missed = reach.subtract(body).eliminate(self.isl.dim_type.set, position, 1)
        return missed.complement().coalesce()

    def _value(self, x: int) -> Any:
        return self.isl.Val(str(x), context=self.ctx)

    def _number(self, x: int) -> Any:
        return self.isl.PwAff.from_aff(
            self.isl.Aff.zero_on_domain(self.local).set_constant_val(self._value(x))
        )

    def _dimension(self, position: int) -> Any:
        return self.isl.PwAff.var_on_domain(self.local, self.isl.dim_type.set, position)

    def plain(self, points: Any) -> Any:
        """The set over n, q and the slot alone."""
        points = points.project_out(self.isl.dim_type.set, 3, len(self.extra))
        return points.reset_space(self.isl.Space.create_from_names(self.ctx, set=["n", "q", "k"]))

    def smallest(self, points: Any) -> Point | None:
        """The first point, coordinate by coordinate."""
        if points.is_empty():
            return None
        points, found = self.plain(points), list[int]()

        def fix(constraint: str) -> None:
            nonlocal points
            where = self.isl.Set(f"{{ [n, q, k] : {constraint} }}", context=self.ctx)
            points = points.intersect(where)

        def take(axis: int, least: bool) -> None:
            value = points.dim_min_val(axis) if least else points.dim_max_val(axis)
            found.append(int(value.to_python()))
            fix(f"{'nqk'[axis]} = {found[-1]}")

        take(0, True)
        for part, least in (("0 <= q < n", True), ("q >= n", True), ("q < 0", False)):
            whole = points
            fix(part)
            if not points.is_empty():
                take(1, least)
                break
            points = whole
        take(2, True)
        return found[0], found[1], found[2]


def _divide(x: Any, divisor: Any) -> Any:
    return x.scale_down_val(divisor) if divisor.is_pos() else x.neg().scale_down_val(divisor.neg())


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a.add(b),
    "sub": lambda a, b: a.sub(b),
    "mul": lambda a, b: a.mul(b),
    "neg": lambda a: a.neg(),
    "abs": lambda a: a.max(a.neg()),
    "min": lambda a, b: a.min(b),
    "max": lambda a, b: a.max(b),
    "ceil": lambda a: a.ceil(),
    "floor": lambda a: a.floor(),
    "lt": lambda a, b: a.lt_set(b),
    "le": lambda a, b: a.le_set(b),
    "eq": lambda a, b: a.eq_set(b),
    "ne": lambda a, b: a.ne_set(b),
}


def dimensions(e: Expr, opaque: bool) -> list[Expr]:
    """What needs a dimension of its own beside n, q and the slot: the variables that quantifiers bind and,
    where ``opaque``, the smallest subexpressions that are not quasi-affine. Raises `NotQuasiAffine`."""
    nodes = e.walk()
    names = {bound(x)[0] for x in nodes if x.op in ("forall", "exists")}
    free = e.free()
    found = [Expr("var", (), name) for name in sorted(names)]
    unfit: dict[Expr, str] = {}  # real numbers that are not quasi-affine, and why
    constant: dict[Expr, bool] = {}
    for x in nodes:
        constant[x] = bool(x.args or x.op == "const") and _piecewise_constant(x, constant)
        if x.op == "var" and x.value in names:
            continue
        reason = next((unfit[a] for a in x.args if a in unfit), None) or _unfit(x, constant)
        if reason is None:
            continue
        if not opaque or free[x] & names:
            raise NotQuasiAffine(reason)
        if x.sort == "real":
            unfit[x] = reason
        else:
            found.append(x)
    return found


def _piecewise_constant(x: Expr, constant: dict[Expr, bool]) -> bool:
    """Takes finitely many values, chosen by conditions: may be a factor."""
    if x.op == "if":
        return constant[x.args[1]] and constant[x.args[2]]
    return x.op == "const" or (x.op in INT_OPS and all(constant[a] for a in x.args))


def _unfit(x: Expr, constant: dict[Expr, bool]) -> str | None:
    """Why the operation is not quasi-affine, as the end of a sentence."""
    match x.op:
        case "var":
            return None if x.value in _POSITION else f"`{x}` has no value yet"
        case "input":
            return f"it reads the run-time input `{x.value}`"
        case "fact":
            return "it is chosen from the data, q and k"
        case "lookup":
            return "it looks pairs up in a table that is drawn or computed"
        case "xor" | "popcount":
            return "it works on binary digits"
        case "mul":
            fits = any(constant[a] for a in x.args)
            return None if fits else f"`{x}` multiplies two numbers that vary"
        case "floordiv" | "mod" | "div":
            return None if x.args[1].number else f"`{x}` divides by a number that is not constant"
        case "pow" | "sqrt" | "log2":
            return f"`{x}` is not a linear function of n"
    return None
