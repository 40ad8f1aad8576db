"""Scalar expressions: the integers and truth values from which every predicate is made.

An `Expr` is immutable and hash-consed. The same expression is read by several interpreters: NumPy and
JAX arrays (`ir.evaluate`), strided intervals over boxes (`ir.interval`) and exact integer sets (`ir.sets`).

Variables are plain names: ``q`` and ``k`` (positions of query and key), ``c`` (index of a summary's chunk),
``n`` (number of keys), ``h`` and ``num_heads``, ``$name`` (a param) and ``%name`` (an argument of a pattern
function, gone after inlining).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from patterndsl.ir.interned import Interned

INT_OPS = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg", "abs", "min", "max", "xor", "popcount"})
REAL_OPS = frozenset({"div", "pow", "sqrt", "log2"})  # only over numbers known before q and k are
ROUND_OPS = frozenset({"ceil", "floor"})
COMPARE_OPS = frozenset({"lt", "le", "eq", "ne"})
BOOL_OPS = frozenset({"and", "or", "not", "forall", "exists", "lookup"})
DATA_OPS = frozenset({"input", "fact"})  # what only a call knows
OPS = INT_OPS | REAL_OPS | ROUND_OPS | COMPARE_OPS | BOOL_OPS | DATA_OPS | {"const", "bool", "var", "if"}

ExprLike = "Expr | int | bool"


class Unknown(TypeError):
    """A number was asked for that depends on what is not known yet."""


NO_BOOL = (
    "this part of the predicate is a Python bool, the same for every pair: write `.eq()` for ==, "
    "`.ne()` for !=, and `k.eq(a) | k.eq(b)` for `in`"
)


@dataclasses.dataclass(frozen=True, eq=False, slots=True, weakref_slot=True, repr=False)
class Expr(metaclass=Interned):
    """One operation.

    ``value`` holds what is not an operand: the number of a ``const``, the truth of a ``bool``, the name of a
    ``var`` or ``input`` (whose one operand is the position), ``(name, trips)`` of a quantifier (operands:
    first, last, body; at most ``trips`` values), the `Table` of a ``lookup`` (operands: row, column), the
    `ir.nodes.Fact` of a ``fact`` (operands: one or two indices).
    """

    op: str
    args: tuple[Expr, ...] = ()
    value: object = None

    # -- building ------------------------------------------------------------------------------------

    def __add__(self, other: Expr | int) -> Expr:
        return build("add", self, other)

    def __radd__(self, other: int) -> Expr:
        return build("add", other, self)

    def __sub__(self, other: Expr | int) -> Expr:
        return build("sub", self, other)

    def __rsub__(self, other: int) -> Expr:
        return build("sub", other, self)

    def __mul__(self, other: Expr | int) -> Expr:
        return build("mul", self, other)

    def __rmul__(self, other: int) -> Expr:
        return build("mul", other, self)

    def __floordiv__(self, other: Expr | int) -> Expr:
        return build("floordiv", self, other)

    def __rfloordiv__(self, other: int) -> Expr:
        return build("floordiv", other, self)

    def __mod__(self, other: Expr | int) -> Expr:
        return build("mod", self, other)

    def __rmod__(self, other: int) -> Expr:
        return build("mod", other, self)

    def __truediv__(self, other: Expr | int) -> Expr:
        return build("div", self, other)

    def __rtruediv__(self, other: int) -> Expr:
        return build("div", other, self)

    def __pow__(self, other: Expr | int) -> Expr:
        return build("pow", self, other)

    def __neg__(self) -> Expr:
        return build("neg", self)

    def __abs__(self) -> Expr:
        return build("abs", self)

    def __lt__(self, other: Expr | int) -> Expr:
        return build("lt", self, other)

    def __le__(self, other: Expr | int) -> Expr:
        return build("le", self, other)

    def __gt__(self, other: Expr | int) -> Expr:
        return build("lt", other, self)

    def __ge__(self, other: Expr | int) -> Expr:
        return build("le", other, self)

    def eq(self, other: Expr | int) -> Expr:
        """``self = other`` as an expression (``==`` is identity, as everywhere in the IR)."""
        return build("eq", self, other)

    def ne(self, other: Expr | int) -> Expr:
        """``self ≠ other`` as an expression."""
        return build("ne", self, other)

    def __and__(self, other: Expr) -> Expr:
        if isinstance(other, bool):
            raise TypeError(NO_BOOL)
        return build("and", self, other)

    __rand__ = __and__

    def __or__(self, other: Expr) -> Expr:
        if isinstance(other, bool):
            raise TypeError(NO_BOOL)
        return build("or", self, other)

    __ror__ = __or__

    def __invert__(self) -> Expr:
        return build("not", self)

    def __bool__(self) -> bool:
        raise TypeError(
            "an Expr has no truth value until q and k are known: write & | ~ for and, or, not, "
            "`.eq()` for ==, and `a <= b` and `b <= c` as two comparisons joined by &"
        )

    def __repr__(self) -> str:
        from patterndsl.ir.text import expr_text

        return expr_text(self)

    # -- reading -------------------------------------------------------------------------------------

    @property
    def sort(self) -> str:
        """``int``, ``bool`` or ``real`` (a number that still needs `ceil` or `floor`)."""
        known = _SORTS.get(self)
        if known is None:  # remembered, as shared operands would be visited once for every path to them
            known = _SORTS[self] = self._sort()
        return known

    def _sort(self) -> str:
        if self.op in COMPARE_OPS or self.op in BOOL_OPS or self.op == "bool":
            return "bool"
        if self.op == "if":
            return self.args[1].sort
        if self.op in REAL_OPS:
            if self.op == "pow" and all(a.sort == "int" for a in self.args) and _natural(self.args[1]):
                return "int"
            return "real"
        if self.op in INT_OPS and any(a.sort == "real" for a in self.args):
            return "real"
        return "int"

    @property
    def number(self) -> int | None:
        """The number, where this is a constant."""
        return self.value if self.op == "const" else None  # type: ignore[return-value]

    def __int__(self) -> int:
        if self.op != "const":
            raise Unknown(f"`{self}` is not a number yet")
        return self.value  # type: ignore[return-value]

    def walk(self) -> list[Expr]:
        """Every distinct subexpression, operands before users."""
        seen: dict[Expr, None] = {}
        stack: list[tuple[Expr, bool]] = [(self, False)]
        while stack:
            node, ready = stack.pop()
            if node in seen:
                continue
            if ready:
                seen[node] = None
            else:
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.args))
        return list(seen)

    def free(self) -> dict[Expr, frozenset[str]]:
        """For each subexpression the variables that it reads and does not bind itself."""
        found: dict[Expr, frozenset[str]] = {}
        for e in self.walk():
            if e.op == "var":
                found[e] = frozenset({str(e.value)})
            elif e.op in ("forall", "exists"):  # the range is outside the scope
                first, last, body = (found[a] for a in e.args)
                found[e] = first | last | (body - {bound(e)[0]})
            else:
                found[e] = frozenset[str]().union(*(found[a] for a in e.args))
        return found

    def names(self) -> frozenset[str]:
        """The variables that it reads."""
        return self.free()[self]

    def inputs(self) -> frozenset[str]:
        """The run-time inputs that it reads."""
        return frozenset(str(e.value) for e in self.walk() if e.op == "input")

    def facts(self) -> frozenset[Any]:
        """The facts (`ir.nodes.Fact`) about q and k that it reads."""
        return frozenset(e.value for e in self.walk() if e.op == "fact")

    def reads_data(self) -> bool:
        """Whether it reads what only a call knows: run-time inputs, or facts."""
        return any(e.op in DATA_OPS for e in self.walk())

    def rebuild(self, leaf: Callable[[Expr], Expr | None]) -> Expr:
        """Replace every subexpression for which ``leaf`` answers, and fold constants on the way."""
        done: dict[Expr, Expr] = {}
        for node in self.walk():
            new = leaf(node)
            if new is None:
                new = build(node.op, *(done[a] for a in node.args), value=node.value)
            done[node] = new
        return done[self]

    def subs(self, env: Mapping[str, Expr | int]) -> Expr:
        """Replace variables by expressions or numbers, folding constants.

        A quantifier's bound variable has a name of its own (`fresh`), so nothing is captured.
        """
        return self.rebuild(
            lambda e: as_expr(env[str(e.value)]) if e.op == "var" and e.value in env else None
        )


_SORTS: WeakKeyDictionary[Expr, str] = WeakKeyDictionary()


def _natural(e: Expr) -> bool:
    return e.op == "const" and isinstance(e.value, int) and e.value >= 0


def as_expr(x: Expr | int | bool) -> Expr:
    """A Python number or truth value as an expression."""
    if isinstance(x, Expr):
        return x
    if isinstance(x, bool):
        return Expr("bool", (), x)
    if isinstance(x, int):
        return Expr("const", (), x)
    raise TypeError(f"expected an integer, a truth value or an Expr, got {type(x).__name__}: {x!r}")


def var(name: str) -> Expr:
    """A variable."""
    return Expr("var", (), name)


def build(op: str, *operands: Expr | int | bool, value: object = None) -> Expr:
    """The operation, folded where its operands are constant or trivial (see `ir.fold`)."""
    from patterndsl.ir.fold import fold

    if op not in OPS:
        raise ValueError(f"no such operation: {op}")
    return fold(op, tuple(as_expr(a) for a in operands), value)


Q, K, C, N = var("q"), var("k"), var("c"), var("n")
HEAD, NUM_HEADS = var("h"), var("num_heads")
TRUE, FALSE = as_expr(True), as_expr(False)


def all_of(*parts: Expr | bool) -> Expr:
    """Conjunction; true of nothing at all."""
    return build("and", *parts)


def any_of(*parts: Expr | bool) -> Expr:
    """Disjunction; false of nothing at all."""
    return build("or", *parts)


def minimum(a: Expr | int, b: Expr | int) -> Expr:
    return build("min", a, b)


def maximum(a: Expr | int, b: Expr | int) -> Expr:
    return build("max", a, b)


def clip(x: Expr | int, low: Expr | int, high: Expr | int) -> Expr:
    """``x`` moved into low … high (low wins where they cross)."""
    return maximum(minimum(x, high), low)


def popcount(x: Expr | int) -> Expr:
    """The number of ones among the binary digits of a non-negative number."""
    return build("popcount", x)


def xor(a: Expr | int, b: Expr | int) -> Expr:
    """Bitwise exclusive or of non-negative numbers."""
    return build("xor", a, b)


def where(condition: Expr | bool, yes: Expr | int, no: Expr | int) -> Expr:
    """``yes`` where the condition holds, else ``no``; both sides are evaluated."""
    return build("if", condition, yes, no)


def read(name: str, position: Expr) -> Expr:
    """The value of the run-time input ``name`` at a token's position (moved into 0 … n − 1)."""
    return build("input", position, value=name)


def member(x: Expr, items: list[Expr | int]) -> Expr:
    """``x`` is one of the items."""
    return any_of(*(x.eq(i) for i in items))


def fresh(body: Expr, stem: str) -> str:
    """A variable name that ``body`` neither reads nor binds."""
    nodes = body.walk()
    taken = {str(e.value) for e in nodes if e.op == "var"}
    taken |= {bound(e)[0] for e in nodes if e.op in ("forall", "exists")}
    name = f"{stem}'"
    while name in taken:
        name += "'"
    return name


def bound(e: Expr) -> tuple[str, int]:
    """The variable of a quantifier, and how many values it has at most."""
    assert isinstance(e.value, tuple)
    name, trips = e.value
    return name, trips


def quantify(op: str, name: str, first: Expr, last: Expr, body: Expr, trips: int) -> Expr:
    """``forall`` or ``exists``: name in first … last (both inclusive, at most ``trips`` values): body."""
    bound = fresh(body, name)
    return build(op, first, last, body.subs({name: var(bound)}), value=(bound, trips))


def evaluate_number(e: Expr, env: Mapping[str, int]) -> int | float:
    """The value of a number expression (no ``q``, ``k``), in Python's exact integers where they stay whole.

    Raises ZeroDivisionError and ValueError as Python does, KeyError for an unknown name and OverflowError
    for a value that is out of all proportion.
    """
    done: dict[Expr, int | float] = {}
    for node in e.walk():
        a = [done[x] for x in node.args]
        value = _number(node, a, env)
        if isinstance(value, complex):
            raise ValueError("a root of a negative number")
        if abs(value) > LARGEST_ON_THE_WAY:
            raise OverflowError("number too large")
        done[node] = value
    return done[e]


LARGEST_ON_THE_WAY = 2**4096
"""Squaring over and over would fill the memory long before a result is compared with a limit."""


def _number(node: Expr, a: list[int | float], env: Mapping[str, int]) -> int | float:
    match node.op:
        case "const" | "bool":
            return node.value  # type: ignore[return-value]
        case "var":
            return env[str(node.value)]
        case "div":
            return a[0] // a[1] if _exact(a) and a[0] % a[1] == 0 else a[0] / a[1]
        case "pow":
            if abs(a[1]) > 256 or abs(a[0]) > 2**64:
                raise OverflowError("power too large")
            return a[0] ** a[1]
        case "sqrt":
            root = math.isqrt(int(a[0])) if _exact(a) and a[0] >= 0 else 0
            return root if root * root == a[0] else math.sqrt(a[0])
        case "log2":
            whole = _exact(a) and a[0] > 0 and int(a[0]) & (int(a[0]) - 1) == 0
            return int(a[0]).bit_length() - 1 if whole else math.log2(a[0])
        case "ceil":
            return math.ceil(a[0])
        case "floor":
            return math.floor(a[0])
        case _:
            from patterndsl.ir.fold import CONSTANT

            result: int | float = CONSTANT[node.op](*a)
            return result


def _exact(a: list[int | float]) -> bool:
    return all(isinstance(x, int) for x in a)
