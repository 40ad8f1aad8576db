"""How many pairs a spec keeps, as a formula over n that is exact for every n in its range.

Where every number in the predicates is affine in the positions and n, but for quotients and remainders by
constants (*quasi-affine*), the kept pairs of given residues are the whole points of polygons whose sides move
with n (`analysis.lines`). From some length on the polygons keep their shape, and the number of points in them
is, for each residue of n modulo a period, a polynomial of degree 2 at most (Ehrhart; Clauss). Period and
threshold are derived from the lines, so that three exact counts for each residue determine the formula for
all n beyond. Further counts, at lengths that played no part, check it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from patterndsl.analysis.count import count
from patterndsl.analysis.lines import Refused, affine, arrangement
from patterndsl.analysis.quadtree import Budget, tally
from patterndsl.diagnostics import SpecError
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr, K, N, Q, Unknown, as_expr
from patterndsl.ir.nodes import Mix, Module, Node, Pattern, Pool, Tokens, Where
from patterndsl.ir.normal import NOTHING, TOKENS, lift_mix, slot_index, terms, walk
from patterndsl.ir.resolve import at_length, names, pick_head, transform
from patterndsl.patterns.random import Random

LONGEST = 2**14
"""Where counts for every length come from two sums over pairs, the greatest length."""
SAMPLES = 64
"""Where each length is counted by itself, how many at most."""
WORK = 4e7
"""What all counts of one form may take, in evaluated subexpressions."""
DENSE = 2**14
"""Pairs that are rather looked at one by one."""
LARGEST_PERIOD = 4096
TOO_LONG = "counting it at the lengths needed takes too long"
CASES = 4  # polynomials that are written out side by side

Polynomial = tuple[Fraction, Fraction, Fraction]  # of n^0, n^1, n^2


@dataclasses.dataclass(frozen=True)
class QuasiPolynomial:
    """For n ≥ ``start`` the polynomial ``cases[n mod period]``, as its coefficients from n^0 on."""

    start: int
    cases: tuple[Polynomial, ...]

    @property
    def period(self) -> int:
        return len(self.cases)

    def __call__(self, n: int) -> int:
        """The value at n. Raises ValueError before the range."""
        if n < self.start:
            raise ValueError(f"n = {n}, but the formula holds for n ≥ {self.start} only")
        return int(_at(self.cases[n % self.period], n))

    def __str__(self) -> str:
        span = "every n" if self.start <= 1 else f"n ≥ {self.start}"
        return f"{_formula(self.cases)} for {span}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: coefficients are texts such as "1/2", from n^0 on, in the order of n mod period."""
        cases = [[str(c) for c in case] for case in self.cases]
        return {"text": str(self), "start": self.start, "period": self.period, "coefficients": cases}


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """Formulas for what all heads keep: ``pairs`` of tokens, and slots in all; ``levels``: of the summaries
    of each level. None where there is none of this kind, or none that could be had, which ``reasons``
    explain."""

    pairs: QuasiPolynomial | None
    slots: QuasiPolynomial | None
    levels: Mapping[int, QuasiPolynomial]
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = "; ".join(self.reasons)
        if self.pairs is None:
            return f"no closed form: {why}"
        parts = [str(self.pairs)]
        parts += [f"level {level}: {form}" for level, form in self.levels.items()]
        if self.levels and self.slots is not None:
            parts.append(f"in all: {self.slots}")
        return "; ".join(parts) + (f" (tokens alone: {why})" if why else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return {
            "pairs": None if self.pairs is None else self.pairs.to_dict(),
            "slots": None if self.slots is None else self.slots.to_dict(),
            "levels": {str(level): form.to_dict() for level, form in self.levels.items()},
            "reasons": list(self.reasons),
        }


def closed_form(module: Module, num_heads: int) -> ClosedForm:
    """The formulas of all heads together. ``module``: inlined, params set, layer picked."""
    heads: dict[Node, int] = {}
    for head in range(num_heads):
        node = pick_head(module.main, head, num_heads)
        heads[node] = heads.get(node, 0) + 1
    budget = Budget(WORK)
    tokens, levels = ZERO, dict[int, QuasiPolynomial]()
    try:
        for node, times in heads.items():
            for branch in _branches(node):
                tokens = _sum(tokens, _tokens(node, branch, budget), times)
        if not module.main.holds_summaries:
            _check(heads, tokens, False, budget)
            return ClosedForm(tokens, tokens, {})
    except (Refused, SpecError) as error:
        return ClosedForm(None, None, {}, (_why(error),))
    try:
        for node, times in heads.items():
            for branch in _branches(node):
                for pool, keep in _summaries(branch):
                    form = _of_keep(node, keep, pool, budget)
                    levels[pool.level] = _sum(levels.get(pool.level, ZERO), form, times)
        slots = tokens
        for form in levels.values():
            slots = _sum(slots, form, 1)
        _check(heads, tokens, False, budget)
        _check(heads, slots, True, budget)
        return ClosedForm(tokens, slots, dict(sorted(levels.items())))
    except (Refused, SpecError) as error:
        why = _why(error)
    try:
        _check(heads, tokens, False, budget)
    except (Refused, SpecError) as error:
        return ClosedForm(None, None, {}, (_why(error),))
    return ClosedForm(tokens, None, {}, (why,))


def _check(heads: Mapping[Node, int], form: QuasiPolynomial, summaries: bool, budget: Budget) -> None:
    """Raise Refused where the pattern, bound at lengths that played no part, is counted otherwise."""
    draw = random.Random(form.start)
    for most in (400, 10_000):
        n = form.start + draw.randrange(4 * form.period + most)
        total = 0
        for node, times in heads.items():
            found = count(at_length(node, n), n, n, 0, rows=False, budget=budget)
            part = found.slots if summaries else found.pairs
            if not part.exact:
                raise Refused(TOO_LONG)
            total += times * part.lower
        if form(n) != total:
            raise Refused(f"the formula found is not that of the count at n = {n:,}")


def _why(error: Refused | SpecError) -> str:
    if isinstance(error, SpecError):
        return "; ".join(d.message() for d in error.diagnostics)
    return str(error)


ZERO = QuasiPolynomial(1, ((Fraction(0),) * 3,))


def _branches(node: Node) -> tuple[Node, ...]:
    node = lift_mix(node)
    return node.branches if isinstance(node, Mix) else (node,)


def _tokens(node: Node, branch: Node, budget: Budget) -> QuasiPolynomial:
    """Of the token pairs. Which levels of summaries there are does not matter for them."""

    def change(p: Node) -> Node:
        own = isinstance(p, Pattern) and type(p).summaries is not Pattern.summaries
        return Where(p.keep(Q, K, N)) if own and isinstance(p, Pattern) else p

    if node.holds_choice:
        raise Refused("what is kept is chosen from q and k")
    if any(isinstance(p, Random) for p in walk(node)):
        raise Refused("what is kept is drawn at random")
    _affine_arguments(node)
    try:
        keep = terms(transform(branch, change), N).get(TOKENS, NOTHING).keep
    except (TypeError, ValueError):
        raise Refused("an argument has no fixed number: it depends on n") from None
    return _of_keep(node, keep, TOKENS, budget)


def _affine_arguments(node: Node) -> None:
    """Raise Refused for an argument that follows n otherwise, even where nothing that is kept depends on it:
    at some lengths it may have no meaning."""

    def look(e: Expr) -> Expr:
        if "n" in e.names() and not e.names() - {"n"} and e.sort != "bool":
            affine(e)
        return e

    transform(node, lambda p: p, look)


def _summaries(branch: Node) -> Iterable[tuple[Pool, Expr]]:
    try:
        found = terms(branch, N)
    except Unknown as error:
        raise Refused(str(error)) from None
    return [(pool, term.keep) for pool, term in found.items() if pool is not TOKENS]


# -- interpolation -----------------------------------------------------------------------------------


def _of_keep(node: Node, keep: Expr, pool: Pool, budget: Budget) -> QuasiPolynomial:
    """The number of slots of a source that a predicate over n keeps."""
    slot = str(slot_index(pool).value)
    period, threshold = arrangement(keep, slot, pool.stride)
    first = threshold + 1  # the formula holds from here on
    last = threshold + 4 * period  # three to determine it, one to check it
    if pool is TOKENS and "n" not in keep.names() and last <= LONGEST:
        counts = _prefixes(keep, last, budget)
    elif last > LONGEST or 4 * period > SAMPLES:
        raise Refused(
            f"it would hold from n = {first:,} on, with a period of {period:,}: more lengths, or longer "
            "ones, than are counted for it"
        )
    else:
        counts = None

    def at(n: int) -> int:
        if counts is not None:
            return int(counts[n])
        return _count(node, keep, pool, n, budget)

    cases: list[Polynomial] = [ZERO.cases[0]] * period
    for n in range(first, first + period):
        lengths = [n + i * period for i in range(3)]
        cases[n % period] = _through(lengths, [at(x) for x in lengths])
    cases = cases[: _least_period(cases)]
    for n in range(last - period + 1, last + 1):
        if _at(cases[n % len(cases)], n) != at(n):
            raise Refused(f"the formula found is not that of the count at n = {n:,}")
    return QuasiPolynomial(_start(node, cases, first, at, counts is not None), tuple(cases))


def _start(node: Node, cases: Sequence[Polynomial], first: int, at: Callable[[int], int], cheap: bool) -> int:
    """The least length from which the formula holds, as far down as is looked."""
    lists = any(isinstance(getattr(p, f.name), Tokens) for p in walk(node) for f in dataclasses.fields(p))
    anywhere = not lists and "n" not in names(node)  # it has a meaning at every length
    for n in range(first - 1, 0, -1):
        if not cheap and first - n > 2 * SAMPLES:
            return n + 1
        try:
            if not anywhere:
                at_length(node, n)
            if _at(cases[n % len(cases)], n) != at(n):
                return n + 1
        except (SpecError, Refused):
            return n + 1
    return 1


def _prefixes(keep: Expr, last: int, budget: Budget) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The counts at 0, 1, …, ``last`` of a predicate that does not read n: one more token adds its row up to
    the diagonal, and its column above."""
    swapped = keep.subs({"q": K, "k": Q})
    total = np.zeros(last + 1, np.int64)
    for part in (keep & (K <= Q), swapped & (K < Q)):
        found = tally(part, "k", 0, last, last, budget=budget)
        if found.rows is None:
            raise Refused(TOO_LONG)
        total[1:] += np.cumsum(found.rows)
    return total


def _count(node: Node, keep: Expr, pool: Pool, n: int, budget: Budget) -> int:
    at_length(node, n)  # raises where the spec has no meaning
    known = keep.subs({"n": as_expr(n)})
    slot, slots = str(slot_index(pool).value), pool.chunks(n)
    if n * slots <= DENSE:
        pairs = {"q": np.arange(n)[:, None], slot: np.arange(slots)[None, :]}
        return int(np.broadcast_to(evaluate(known, pairs), (n, slots)).sum())
    found = tally(known, slot, 0, n, slots, stride=pool.stride, rows=False, budget=budget)
    if not found.exact:
        raise Refused(TOO_LONG)
    return found.lower


def _through(x: Sequence[int], y: Sequence[int]) -> Polynomial:
    """The polynomial of degree 2 through three points (Newton's divided differences)."""
    first = Fraction(y[1] - y[0], x[1] - x[0])
    second = (Fraction(y[2] - y[1], x[2] - x[1]) - first) / (x[2] - x[0])
    return (y[0] - first * x[0] + second * x[0] * x[1], first - second * (x[0] + x[1]), second)


def _at(case: Polynomial, n: int) -> Fraction:
    return case[0] + n * (case[1] + n * case[2])


def _least_period(cases: Sequence[Polynomial]) -> int:
    divisors = (d for d in range(1, len(cases) + 1) if len(cases) % d == 0)
    return next(d for d in divisors if all(a == b for a, b in zip(cases, cases[d:], strict=False)))


def _sum(a: QuasiPolynomial, b: QuasiPolynomial, times: int) -> QuasiPolynomial:
    """``a + times · b``."""
    period = math.lcm(a.period, b.period)
    if period > LARGEST_PERIOD:
        raise Refused(f"heads or levels together repeat with a period of {period:,}")
    cases: list[Polynomial] = []
    for r in range(period):
        x, y = a.cases[r % a.period], b.cases[r % b.period]
        cases.append((x[0] + times * y[0], x[1] + times * y[1], x[2] + times * y[2]))
    return QuasiPolynomial(max(a.start, b.start), tuple(cases[: _least_period(cases)]))


# -- text --------------------------------------------------------------------------------------------


def _formula(cases: Sequence[Polynomial]) -> str:
    if len(cases) == 1:
        return _polynomial(_monomials([cases[0]] * 3))
    if len(cases) > 3:
        by_residue = _monomials(cases)
        if all(_value(by_residue, i, r) == c[i] for r, c in enumerate(cases) for i in range(3)):
            return f"{_polynomial(by_residue)} with r = n mod {len(cases)}"
    residues: dict[Polynomial, list[int]] = {}
    for r, case in enumerate(cases):
        residues.setdefault(case, []).append(r)
    shown = [
        f"{_polynomial(_monomials([case] * 3))} where n mod {len(cases)} is {_list(where)}"
        for case, where in itertools.islice(residues.items(), CASES)
    ]
    more = len(residues) - len(shown)
    return ", ".join(shown) + (f", and {more} more such cases" if more else "")


def _list(residues: Sequence[int]) -> str:
    """``0, 3 or 5–9``."""
    runs: list[list[int]] = []
    for r in residues:
        if runs and runs[-1][-1] == r - 1:
            runs[-1].append(r)
        else:
            runs.append([r])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _monomials(cases: Sequence[Polynomial]) -> dict[tuple[int, int], Fraction]:
    """Coefficients of n^i · r^j by which the first three cases come out."""
    found: dict[tuple[int, int], Fraction] = {}
    for i in range(3):
        second = (cases[2][i] - 2 * cases[1][i] + cases[0][i]) / 2
        found |= {(i, 0): cases[0][i], (i, 1): cases[1][i] - cases[0][i] - second, (i, 2): second}
    return {at: c for at, c in found.items() if c}


def _value(monomials: Mapping[tuple[int, int], Fraction], i: int, r: int) -> Fraction:
    return sum((c * r**j for (of_n, j), c in monomials.items() if of_n == i), Fraction(0))


def _polynomial(monomials: Mapping[tuple[int, int], Fraction]) -> str:
    """``n(n + 1)/2``, ``128·n − 8128``."""
    if not monomials:
        return "0"
    below = math.lcm(*(c.denominator for c in monomials.values()))
    common = min(i for i, _ in monomials) if len(monomials) > 1 else 0
    order = sorted(monomials, key=lambda at: (at[0] + at[1], at[0]), reverse=True)
    text = ""
    for i, j in order:
        c = int(monomials[i, j] * below)
        powers = [_power("n", i - common), _power("r", j)]
        factors = ([str(abs(c))] if abs(c) != 1 else []) + [p for p in powers if p]
        sign = (" − " if c < 0 else " + ") if text else "−" * (c < 0)
        text += sign + ("·".join(factors) or "1")
    if common:
        return f"{_power('n', common)}({text})" + (f"/{below}" if below > 1 else "")
    if below > 1:
        return f"({text})/{below}" if len(order) > 1 else f"{text}/{below}"
    return text


def _power(name: str, exponent: int) -> str:
    return "" if not exponent else name if exponent == 1 else f"{name}^{exponent}"
