"""The lines along which a quasi-affine predicate over a query, a slot and n changes.

For positions with given residues modulo some M, every number of such a predicate is one of a few affine
functions a·q + b·k + c·n + d, of which d depends on the residues alone; here it is bounded. The predicate
changes only where one of them, or the difference of two, changes its sign. How these lines lie to each other
is the same for all n beyond a threshold: a line passes through the point where two others meet at one n,
which depends on the coefficients only.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from patterndsl.ir.expr import COMPARE_OPS, REAL_OPS, ROUND_OPS, Expr, bound

MOST_PIECES = 64
MOST_LINES = 48
MOST_TRIPS = 64
MOST_DIGITS = 2**63  # of a period or threshold on the way


class Refused(Exception):
    """There is no formula of this kind, or none within reach; says why."""


Moduli = tuple[int, int, int]
NO_MODULI = (1, 1, 1)


class Piece(NamedTuple):
    """a·q + b·slot + c·n + d with d in ``low`` … ``high``, which depends on the residues of q, slot and n
    modulo ``moduli``."""

    a: Fraction
    b: Fraction
    c: Fraction
    low: Fraction
    high: Fraction
    moduli: Moduli

    @property
    def flat(self) -> bool:
        return not (self.a or self.b or self.c)

    def times(self, factor: Fraction) -> Piece:
        low, high = sorted((self.low * factor, self.high * factor))
        return Piece(self.a * factor, self.b * factor, self.c * factor, low, high, self.moduli)

    def plus(self, other: Piece) -> Piece:
        return Piece(
            self.a + other.a,
            self.b + other.b,
            self.c + other.c,
            self.low + other.low,
            self.high + other.high,
            _lcm(self.moduli, other.moduli),
        )


def _lcm(x: Moduli, y: Moduli) -> Moduli:
    return math.lcm(x[0], y[0]), math.lcm(x[1], y[1]), math.lcm(x[2], y[2])


def constant(low: int, high: int | None = None, moduli: Moduli = NO_MODULI) -> Piece:
    """A number that depends on residues at most."""
    zero = Fraction(0)
    return Piece(zero, zero, zero, Fraction(low), Fraction(low if high is None else high), moduli)


class _Lines:
    def __init__(self, slot: str) -> None:
        one, zero = Fraction(1), Fraction(0)
        self.names = {
            "q": [Piece(one, zero, zero, zero, zero, NO_MODULI)],
            slot: [Piece(zero, one, zero, zero, zero, NO_MODULI)],
            "n": [Piece(zero, zero, one, zero, zero, NO_MODULI)],
        }
        self.found: dict[tuple[Fraction, Fraction, Fraction], tuple[Fraction, Fraction]] = {}
        self.moduli: Moduli = NO_MODULI
        self.pieces: dict[Expr, list[Piece]] = {}
        self.tested: set[Expr] = set()

    def line(self, x: Piece) -> None:
        self.moduli = _lcm(self.moduli, x.moduli)
        if max(self.moduli) > MOST_DIGITS:
            raise Refused("its residues repeat with too long a period")
        if x.flat:
            return
        if next(t for t in (x.a, x.b, x.c) if t) < 0:
            x = x.times(Fraction(-1))
        low, high = self.found.get((x.a, x.b, x.c), (x.low, x.high))
        self.found[x.a, x.b, x.c] = min(low, x.low), max(high, x.high)
        if len(self.found) > MOST_LINES:
            raise Refused(f"the predicate changes along more than {MOST_LINES} kinds of lines")

    def between(self, left: Sequence[Piece], right: Sequence[Piece]) -> None:
        for x, y in itertools.product(left, right):
            self.line(x.plus(y.times(Fraction(-1))))

    # -- truths --------------------------------------------------------------------------------------

    def truth(self, e: Expr) -> None:
        if e in self.tested:
            return
        self.tested.add(e)
        if e.op in COMPARE_OPS and e.args[0].sort != "bool":
            self.between(self.number(e.args[0]), self.number(e.args[1]))
        elif e.op in ("and", "or", "not", "if") or e.op in COMPARE_OPS:
            for a in e.args:
                self.truth(a)
        elif e.op in ("forall", "exists"):
            self.quantifier(e)
        elif e.op != "bool":
            raise Refused(_reason(e))

    def quantifier(self, e: Expr) -> None:
        first, last, body = e.args
        name, trips = bound(e)
        if trips > MOST_TRIPS:
            raise Refused(f"a summary is kept by a test of each of its {trips} tokens")
        for i in range(trips):
            self.between(self.number(first + i), self.number(last))
            self.truth(body.subs({name: first + i}))

    # -- numbers -------------------------------------------------------------------------------------

    def number(self, e: Expr) -> list[Piece]:
        if e not in self.pieces:
            found = list(dict.fromkeys(self._number(e)))
            if len(found) > MOST_PIECES:
                raise Refused(f"`{_short(e)}` has more than {MOST_PIECES} pieces")
            self.pieces[e] = found
        return self.pieces[e]

    def _number(self, e: Expr) -> list[Piece]:
        if e.op == "const":
            return [constant(int(e))]
        if e.op == "var" and e.value in self.names:
            return self.names[str(e.value)]
        if e.op == "if":
            self.truth(e.args[0])
            return self.number(e.args[1]) + self.number(e.args[2])
        if e.op not in ("add", "sub", "mul", "floordiv", "mod", "neg", "abs", "min", "max"):
            raise Refused(_reason(e))
        left, *others = (self.number(a) for a in e.args)
        match e.op:
            case "neg":
                return [x.times(Fraction(-1)) for x in left]
            case "abs":
                for x in left:
                    self.line(x)
                return left + [x.times(Fraction(-1)) for x in left]
            case "min" | "max":
                self.between(left, others[0])
                return left + others[0]
        pairs = itertools.product(left, others[0])
        return [_combined(e, x, y) for x, y in pairs]


def _combined(e: Expr, x: Piece, y: Piece) -> Piece:
    if e.op in ("add", "sub"):
        return x.plus(y if e.op == "add" else y.times(Fraction(-1)))
    number = e.args[1].number
    if e.op == "mul":
        for factor, other in ((e.args[0].number, y), (number, x)):
            if factor is not None:
                return other.times(Fraction(factor))
        if x.flat and y.flat:
            ends = [s * t for s in (x.low, x.high) for t in (y.low, y.high)]
            return constant(int(min(ends)), int(max(ends)), _lcm(x.moduli, y.moduli))
        raise Refused(f"`{_short(e)}` is a product of positions")
    if not number:
        raise Refused(f"`{_short(e)}` divides by what is no fixed number")
    own = (x.a / number).denominator, (x.b / number).denominator, (x.c / number).denominator
    rest = constant(min(0, number + 1), max(0, number - 1), _lcm(x.moduli, own))
    return rest if e.op == "mod" else x.plus(rest.times(Fraction(-1))).times(Fraction(1, number))


def _reason(e: Expr) -> str:
    if e.op == "input":
        return "what is kept depends on the run-time inputs"
    if e.op == "fact":
        return "what is kept is chosen from q and k"
    if e.op == "lookup":
        return "what is kept is drawn at random"
    if e.op in ("xor", "popcount"):
        return f"`{_short(e)}` reads binary digits"
    if e.op in REAL_OPS | ROUND_OPS:
        return f"`{_short(e)}` is not affine in n"
    return f"`{_short(e)}` is not affine in the positions"


def _short(e: Expr) -> str:
    text = str(e)
    return text if len(text) <= 48 else f"{text[:47]}…"


def affine(e: Expr) -> None:
    """Raise Refused for a number that is not affine in n, in pieces and for each residue."""
    _Lines("k").number(e)


@functools.lru_cache(maxsize=256)
def arrangement(keep: Expr, slot: str, stride: int) -> tuple[int, int]:
    """A period and a threshold. For n beyond the threshold, the number of kept pairs of queries and slots
    (one for each ``stride`` tokens) is, for each residue of n, a polynomial of degree 2. Raises Refused."""
    lines = _Lines(slot)
    lines.truth(keep)
    q, k, n, one = (lines.names["q"][0], lines.names[slot][0], lines.names["n"][0], constant(1))
    for edge in (q, k, n.plus(q.plus(one).times(Fraction(-1)))):
        lines.line(edge)
    lines.line(n.plus(k.times(Fraction(stride)).plus(one).times(Fraction(-1))))
    return _period(lines)


def _period(lines: _Lines) -> tuple[int, int]:
    """With q = M·q' + r and so on, a line is A·q' + B·k' + C·n' + e with whole numbers. Divided by the
    greatest divisor of A and B (e is rounded, n' restricted to residues for which C is whole), corners of
    polygons are fractions by the determinants of two lines."""
    of_q, of_slot, of_n = lines.moduli
    scale = math.lcm(*lines.moduli, *(x.denominator for ends in lines.found.values() for x in ends))
    normals: set[tuple[int, int]] = set()
    rows: list[tuple[int, int, int, int]] = []
    threshold, steps = 1, 1
    for (a, b, c), (low, high) in lines.found.items():
        most = max(abs(low), abs(high))
        divisor = math.gcd(int(a * of_q), int(b * of_slot))
        if not divisor:
            threshold = max(threshold, math.ceil((most + 1) / abs(c)))
            continue
        normals.add((int(a * of_q) // divisor, int(b * of_slot) // divisor))
        steps = math.lcm(steps, divisor // math.gcd(divisor, int(c * of_n)))
        most += divisor + 1  # by which it moves where it is rounded, or excludes its own points
        rows.append((int(a * scale), int(b * scale), int(c * scale), math.ceil(most * scale)))
    corners = [abs(x[0] * y[1] - x[1] * y[0]) for x, y in itertools.combinations(normals, 2)]
    period = of_n * steps * math.lcm(*(d for d in corners if d))
    if period > MOST_DIGITS:
        raise Refused("its residues repeat with too long a period")
    return period, max(threshold, _threshold(rows))


def _threshold(rows: Sequence[tuple[int, int, int, int]]) -> int:
    """The last n at which three of the lines may meet in one point without doing so at every n."""
    found = 1
    for x, y, z in itertools.combinations(rows, 3):
        by_x, by_y, by_z = (
            y[0] * z[1] - y[1] * z[0],
            z[0] * x[1] - z[1] * x[0],
            x[0] * y[1] - x[1] * y[0],
        )
        turn = x[2] * by_x + y[2] * by_y + z[2] * by_z
        if turn:
            most = x[3] * abs(by_x) + y[3] * abs(by_y) + z[3] * abs(by_z)
            found = max(found, -(-most // abs(turn)))
    return found
