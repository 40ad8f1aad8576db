"""How the number of slots kept grows with n: the classes n^a · log^b n.

The upper bound is read off the patterns' own bounds (`Pattern.pairs`). Whether it is met is judged by
exact counts at lengths that grow by a constant factor: c(n) / n^a settles, grows by a constant at each
step, or falls off.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from fractions import Fraction

from patterndsl.analysis.count import count, table_entries
from patterndsl.analysis.quadtree import Budget
from patterndsl.api import head_nodes
from patterndsl.diagnostics import SpecError
from patterndsl.ir.expr import Expr, N
from patterndsl.ir.nodes import Intersection, Mix, Module, Node, Sum, Union
from patterndsl.ir.normal import pairs_bound
from patterndsl.ir.resolve import pick_head


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class Rate:
    """n^power · (log n)^log."""

    power: Fraction
    log: Fraction = Fraction(0)

    def __lt__(self, other: Rate) -> bool:
        return (self.power, self.log) < (other.power, other.log)

    def __mul__(self, other: Rate) -> Rate:
        return Rate(self.power + other.power, self.log + other.log)

    def __truediv__(self, other: Rate) -> Rate:
        return Rate(self.power - other.power, self.log - other.log)

    def __pow__(self, exponent: Fraction) -> Rate:
        return Rate(self.power * exponent, self.log * exponent)

    def __str__(self) -> str:
        factors = [_factor("n", self.power)] if self.power else []
        factors += [_factor("log n", self.log)] if self.log else []
        return " ".join(factors) or "1"


def _factor(base: str, exponent: Fraction) -> str:
    if exponent == 1:
        return base
    shown = str(exponent) if exponent.denominator == 1 else f"{float(exponent):g}"
    return f"{base}^{shown}" if base == "n" else f"log^{shown} n"


CONSTANT = Rate(Fraction(0))
LINEAR = Rate(Fraction(1))
QUADRATIC = Rate(Fraction(2))


@dataclasses.dataclass(frozen=True)
class Growth:
    """The class of the slots kept. ``rate`` None: nothing is kept at large n. ``tight``: Θ, else an
    upper bound, O. ``measured``: the patterns' own bound is looser; the class rests on counts at growing
    lengths alone."""

    rate: Rate | None
    tight: bool
    measured: bool = False

    def __str__(self) -> str:
        if self.rate is None:
            return "0"
        return f"{'Θ' if self.tight else 'O'}({self.rate})"


def rate(e: Expr) -> Rate | None:
    """The class of a number over n, or of an upper bound on it; None for nothing at all. ``n ** n`` and
    the like raise ValueError."""
    done: dict[Expr, Rate | None] = {}
    for x in e.walk():
        done[x] = _rate(x, [done[a] for a in x.args])
    return done[e]


def _rate(x: Expr, a: list[Rate | None]) -> Rate | None:
    known = [r for r in a if r is not None]
    match x.op:
        case "const":
            return CONSTANT if int(x) else None
        case "bool":
            return None
        case "var":
            return LINEAR if x is N else CONSTANT
        case "add" | "max" | "abs" | "neg" | "ceil" | "floor" | "xor" | "popcount":
            most = max(known, default=None)
            rounded_up = x.op == "ceil" and most is not None
            return max(most, CONSTANT) if rounded_up and most is not None else most
        case "sub":
            return a[0] if a[0] is not None else a[1]
        case "if":
            return max((r for r in a[1:] if r is not None), default=None)
        case "min":
            return min(known) if len(known) == 2 else None
        case "mul":
            return a[0] * a[1] if a[0] is not None and a[1] is not None else None
        case "div":
            return a[0] if a[0] is None or a[1] is None else a[0] / a[1]
        case "floordiv":
            if a[0] is None or a[1] is None:
                return a[0]
            quotient = a[0] / a[1]
            return quotient if quotient >= CONSTANT else None
        case "mod":
            return min(known) if len(known) == 2 else a[0]
        case "sqrt":
            return None if a[0] is None else a[0] ** Fraction(1, 2)
        case "log2":
            return Rate(Fraction(0), Fraction(1)) if a[0] is not None and a[0] > CONSTANT else CONSTANT
        case "pow":
            exponent = x.args[1]
            number = Fraction(int(exponent)) if exponent.number is not None else _quotient(exponent)
            if number is not None and a[0] is not None:
                return a[0] ** number
    raise ValueError(f"no class for `{x}`")


def _quotient(e: Expr) -> Fraction | None:
    if e.op == "div" and all(a.number is not None for a in e.args) and e.args[1].number:
        return Fraction(int(e.args[0]), int(e.args[1]))
    return None


def upper_rate(node: Node) -> Rate | None:
    """The class of the bound that the pattern itself gives; n² where it gives none."""
    try:
        found = rate(pairs_bound(node, N))
    except (ValueError, TypeError):  # arguments that are known at a given n only
        return QUADRATIC
    return None if found is None else min(found, QUADRATIC)


# -- counts at growing lengths -----------------------------------------------------------------------

LADDERS = ((13, 17, 21, 25), (8, 12, 16, 20), (8, 11, 14, 17), (6, 8, 10, 12))
"""Exponents of the lengths 2^i, tried in turn until the counts can be had."""
OTHERS = (3 * 2**12, 10_007)
"""No powers of two: a pattern that is said to keep nothing must keep nothing here, too."""
LARGEST_TABLE = 2**16


def fit(lengths: Sequence[int], counts: Sequence[int], most: Rate | None = QUADRATIC) -> Rate | None:
    """The class that counts at four lengths, each the same multiple of the one before, follow; at most
    ``most``.

    None where no class fits.
    """
    most = most or QUADRATIC
    for power in _powers(most):
        log = most.log if power == most.power else None
        scaled = [c / n ** float(power) for n, c in zip(lengths, counts, strict=True)]
        found = _log(scaled, log, lengths[1] / lengths[0])
        if found is not None:
            return Rate(power, Fraction(found))
    return None


def _powers(most: Rate) -> list[Fraction]:
    halves = {Fraction(i, 2) for i in range(5)} | {most.power}
    return sorted((p for p in halves if p <= most.power), reverse=True)


def _log(d: Sequence[float], most: Fraction | None, step: float) -> int | None:
    """0 where ``d`` settles at a positive limit, 1 or 2 where it grows with the first or second power of
    the step's number (each length is ``step`` times the one before), None where it does neither."""
    steps = [b - a for a, b in itertools.pairwise(d)]
    if d[-1] <= 0:
        return None
    if abs(steps[-1]) <= 1e-6 * d[-1] and abs(steps[-2]) <= 1e-3 * d[-1]:
        return 0
    steady = most == 0 or steps[-1] * steps[-2] < 0  # cannot grow, or does not
    if steady and all(abs(s) < 0.1 * x for s, x in zip(steps[1:], d[1:], strict=False)):
        return 0  # it falls off more slowly than a power or 1 / log n would: noise, of a draw or of rounding
    ratios = [b / a if a else 0.0 for a, b in itertools.pairwise(steps)]
    if abs(ratios[-1]) < 0.5:
        # If the rest is one power of n it falls geometrically, and two steps give the limit (Aitken).
        limits = [x + s * r / (1 - r) for x, s, r in zip(d[2:], steps[1:], ratios, strict=True) if r != 1]
        settled = len(limits) == 2 and limits[1] > 0 and 0.66 < limits[0] / limits[1] < 1.5
        one_power = any(abs(ratios[-1] * step ** (i / 2) - 1) < 0.05 for i in (1, 2, 3))
        # A limit that is small beside the rest may be noise in counts that grow more slowly.
        clear = limits[-1] > 0.3 * d[-1] and d[-2] < d[-1] * step / 2
        return 0 if (settled or one_power) and clear else None
    if steps[-1] <= 0 or steps[-2] <= 0 or most == 0:
        return None
    if most == 1:
        return 1 if ratios[-1] < 2.5 else None
    if 0.5 <= ratios[-1] < 1.2 and ratios[-2] < 1.6:
        return 1
    return 2 if 1.2 <= ratios[-1] < 1.7 and ratios[-2] < 2 else None


def growth(module: Module, num_heads: int, budget: Budget | None = None) -> tuple[Growth, str]:
    """The class of the slots kept by all heads of one layer, and a line that says why.

    ``module``: inlined, params set, layer picked.
    """
    nodes = list(dict.fromkeys(pick_head(module.main, head, num_heads) for head in range(num_heads)))
    bounds = [upper_rate(node) for node in nodes]
    most = max((b for b in bounds if b is not None), default=None)
    why = reason(max(nodes, key=lambda node: upper_rate(node) or Rate(Fraction(-1))))
    if most is None:
        return Growth(None, True), why
    ladder = _ladder(module, num_heads, budget or Budget(8e7))
    if ladder is None:
        return Growth(most, False), f"{why} (an upper bound: no exact counts at growing lengths)"
    lengths, lower, upper = ladder
    if upper[-1] == 0:
        if all(_slots(module, num_heads, n, Budget(1e7)) == (0, 0) for n in OTHERS):
            return Growth(None, True, True), f"nothing is kept at n = {lengths[-1]}"
        return Growth(most, False), f"{why} (an upper bound; nothing at some lengths, but not at all)"
    high, low = fit(lengths, upper, most), fit(lengths, lower, most)
    if high is None:
        return Growth(most, False), f"{why} (an upper bound; the counts follow no simple class)"
    measured = high != most
    if measured:
        why = f"exact counts up to n = {lengths[-1]} grow as {high}; {why}"
    if low != high:
        data = "q and k" if module.main.holds_choice else "the run-time inputs"
        return Growth(high, False, measured), f"{why}; how many depends on {data}"
    return Growth(high, True, measured), why


def _ladder(module: Module, num_heads: int, budget: Budget) -> tuple[list[int], list[int], list[int]] | None:
    """Lengths, and the least and the greatest number of slots kept at each; None where they cannot be had."""
    for exponents in LADDERS:
        share = Budget(budget.work / 2)
        totals: list[tuple[int, int]] = []
        for i in reversed(exponents):  # the costliest first
            found = _slots(module, num_heads, 2**i, share)
            if found is None:
                break
            totals.append(found)
        if len(totals) == len(exponents):
            low, high = zip(*reversed(totals), strict=True)
            return [2**i for i in exponents], list(low), list(high)
    return None


def _slots(module: Module, num_heads: int, n: int, budget: Budget) -> tuple[int, int] | None:
    low = high = 0
    try:
        for heads, node in head_nodes(module, n, num_heads):
            if table_entries(node, n) > LARGEST_TABLE:
                return None
            found = count(node, n, n, 0, rows=False, budget=budget)
            if not (found.slots.exact or module.inputs or node.holds_choice):
                return None
            low += len(heads) * found.slots.lower
            high += len(heads) * found.slots.upper
    except SpecError:  # the spec has no meaning at this length
        return None
    return low, high


# -- the reason --------------------------------------------------------------------------------------


def reason(node: Node) -> str:
    """Which members dominate: "hierarchical(4) keeps O(log n) slots a query; local(128) at most 255"."""
    members = sorted(_members(node), key=_per_query, reverse=True)
    first, rest = members[0], members[1:4]
    text = f"{_short(first)} keeps {_amount(first)} a query on average"
    others = ", ".join(f"{_short(m)} {_amount(m, '')}" for m in rest)
    return f"{text}; {others}" if others else text


def _members(node: Node) -> list[Node]:
    """The members of the union that bounds the pattern."""
    if isinstance(node, Union | Sum):
        return [m for member in node.members for m in _members(member)]
    if isinstance(node, Mix):
        return [m for member in node.branches for m in _members(member)]
    if isinstance(node, Intersection):
        return _members(min(node.members, key=_per_query))
    return [node]


def _per_query(node: Node) -> tuple[Rate, float]:
    found = upper_rate(node)
    least = Rate(Fraction(-9)) if found is None else found / LINEAR
    return least, _value(node)


def _value(node: Node, n: int = 2**20) -> float:
    from patterndsl.ir.expr import evaluate_number

    try:
        return float(evaluate_number(pairs_bound(node, N), {"n": n})) / n
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return float(n)


def _amount(node: Node, unit: str = " slots") -> str:
    per_query, value = _per_query(node)
    if per_query == CONSTANT:
        return f"at most {value:.0f}{unit}"
    if per_query < CONSTANT:
        return f"O({per_query}){unit}" if upper_rate(node) is not None else "nothing"
    return f"O({per_query}){unit}"


def _short(node: Node) -> str:
    text = str(node)
    return text if len(text) <= 48 else f"{text[:47]}…"
