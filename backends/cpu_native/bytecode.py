"""Predicates as bytecode: an expression over ``q`` and a slot's index becomes instructions over vectors of
32-bit integers, which ``src/predicate.h`` runs on the tiles that are kept in part.

What depends on the query alone is computed once for a tile, what depends on the slot alone once for a run of
slots; only the rest is computed pair by pair. Truth is −1, falsehood 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from patterndsl.ir.expr import Expr, bound, build
from patterndsl.ir.nodes import Fact
from patterndsl.ir.normal import Term
from patterndsl.ir.table import Table

Int32 = npt.NDArray[np.int32]

OPS = (
    *("add", "sub", "mul", "floordiv", "mod", "neg", "abs", "min", "max", "xor", "popcount"),
    *("lt", "le", "eq", "ne", "and", "or", "not", "if", "input", "lookup", "forall", "exists"),
    "fact",
)
"""Operations by their code, as in `enum Op` of ``src/predicate.h``."""

CONSTANT, QUERY, SLOT, PAIR = range(4)  # kinds of operands
WORDS = 8  # integers in an instruction
MOST_REGISTERS = 2048
SAFE = 2**30  # sums of two numbers below it fit


class Untranslatable(Exception):
    """The expression has no bytecode; the text says why."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What predicates read at run time, by number: the names of inputs, and facts."""

    inputs: tuple[str, ...]
    facts: tuple[Fact, ...] = ()


@dataclasses.dataclass
class _Scope:
    """Instructions that are computed together: of one phase, or of a quantifier's body. ``names``: the
    variables that they may read."""

    kind: int
    names: frozenset[str]
    code: list[list[int]] = dataclasses.field(default_factory=list)
    known: dict[Expr, int] = dataclasses.field(default_factory=dict)


class _Compiler:
    def __init__(self, slot: str, data: Data, place: Callable[[Int32], int]) -> None:
        self.slot, self.data, self.place = slot, data, place
        self.constants: list[int] = []
        self.registers = [
            0,
            1,
            1,
            0,
        ]  # register 0 of the first two phases: the query's position, the slot's index
        names = frozenset({"q", slot})
        self.scopes = [_Scope(kind, names) for kind in (CONSTANT, QUERY, SLOT, PAIR)]
        self.bodies: list[_Scope] = []

    def operand(self, e: Expr) -> int | None:
        """Where the value of an expression is, if it has been computed."""
        for scope in (*self.scopes, *self.bodies):
            if e in scope.known:
                return scope.known[e]
        return None

    def compile(self, e: Expr) -> int:
        """Emit what computes the expression; where its value then is."""
        free = e.free()
        names = self.scopes[0].names.union(*(b.names for b in self.bodies))
        for node in e.walk():
            if free[node] <= names and self.operand(node) is None:
                self._emit(node, free[node])
        found = self.operand(e)
        assert found is not None
        return found

    def _emit(self, e: Expr, free: frozenset[str]) -> None:
        if e.op in ("const", "bool"):
            assert isinstance(e.value, int)
            self.scopes[CONSTANT].known[e] = self._constant(-e.value if e.op == "bool" else e.value)
            return
        if e.op == "var":
            kind = QUERY if e.value == "q" else SLOT
            self.scopes[kind].known[e] = kind << 24
            return
        if e.op not in OPS:
            raise Untranslatable(f"the operation `{e.op}` has no code")
        scope = self._scope(free)
        if e.op in ("forall", "exists"):
            scope.known[e] = self._quantifier(e, scope)
            return
        operands = [self._known(a) for a in e.args]
        if e.op in ("and", "or"):
            scope.known[e] = self._chain(e, operands)
        elif e.op == "input":
            scope.known[e] = self._instruction(
                scope, e.op, [operands[0], self.data.inputs.index(str(e.value))]
            )
        elif e.op == "fact":
            assert isinstance(e.value, Fact)
            column = operands[1] if len(operands) > 1 else self._constant(0)
            scope.known[e] = self._instruction(
                scope, e.op, [operands[0], column, self.data.facts.index(e.value)]
            )
        elif e.op == "lookup":
            assert isinstance(e.value, Table)
            table = [self.place(e.value.entries), *e.value.entries.shape, e.value.columns]
            scope.known[e] = self._instruction(scope, e.op, [*operands, *table])
        else:
            scope.known[e] = self._instruction(scope, e.op, operands)

    def _known(self, e: Expr) -> int:
        found = self.operand(e)
        assert found is not None
        return found

    def _scope(self, free: frozenset[str]) -> _Scope:
        """Where an expression with these variables is computed: as rarely as can be."""
        for body in reversed(self.bodies):
            if free & (body.names - self.scopes[0].names):
                return body
        if self.slot not in free:
            return self.scopes[QUERY]
        return self.scopes[PAIR if "q" in free else SLOT]

    def _constant(self, value: int) -> int:
        if not -(2**31) <= value < 2**31:
            raise Untranslatable(f"{value} does not fit into 32 bits")
        if value not in self.constants:
            self.constants.append(value)
        return CONSTANT << 24 | self.constants.index(value)

    def _register(self, kind: int) -> int:
        self.registers[kind] += 1
        if self.registers[kind] > MOST_REGISTERS:
            raise Untranslatable(f"the predicate takes more than {MOST_REGISTERS} registers")
        return kind << 24 | self.registers[kind] - 1

    def _instruction(self, scope: _Scope, op: str, operands: Sequence[int]) -> int:
        to = self._register(scope.kind)
        scope.code.append([OPS.index(op), to, *operands, *[0] * (WORDS - 2 - len(operands))])
        return to

    def _chain(self, e: Expr, operands: list[int]) -> int:
        """Conjunction or disjunction, two by two; what varies least first, to be computed least often."""
        homes = [self._scope(a.free()[a]) for a in e.args]
        order = [*self.scopes, *self.bodies]
        ranked = sorted(range(len(operands)), key=lambda i: order.index(homes[i]))
        so_far, free = operands[ranked[0]], e.args[ranked[0]].names()
        for i in ranked[1:]:
            free = free | e.args[i].names()
            so_far = self._instruction(self._scope(free), e.op, [so_far, operands[i]])
        return so_far

    def _quantifier(self, e: Expr, scope: _Scope) -> int:
        first, last, inner = e.args
        name, trips = bound(e)
        low, high = self._known(first), self._known(last)
        body = _Scope(scope.kind, frozenset({name}))
        variable = self._register(scope.kind)
        body.known[build("var", value=name)] = variable
        self.bodies.append(body)
        held = self.compile(inner)
        self.bodies.pop()
        to = self._register(scope.kind)
        scope.code.append([OPS.index(e.op), to, low, high, held, variable, trips, len(body.code)])
        scope.code.extend(body.code)
        return to


def compile_term(term: Term, slot: str, data: Data, place: Callable[[Int32], int]) -> Int32:
    """The bytecode of a predicate and its count over ``q`` and ``slot``, after a header (`TermHeader`).

    ``place`` stores a lookup table and says where it is. Raises `Untranslatable`.
    """
    compiler = _Compiler(slot, data, place)
    keep = compiler.compile(apart(term.keep, slot))
    count = -1 if term.count is None else compiler.compile(term.count)
    _, queries, slots, pairs = compiler.scopes
    read = {x for i in pairs.code for x in i[1:] if x >> 24 == SLOT} | {
        x for x in (keep, count) if x >> 24 == SLOT
    }
    header = [len(compiler.constants), *compiler.registers[1:], keep, count]
    header += [len(queries.code), len(slots.code), len(pairs.code), len(read)]
    words = [*header, *sorted(x & 0xFFFFFF for x in read), *compiler.constants]
    for scope in (queries, slots, pairs):
        for instruction in scope.code:
            words += instruction
    return np.array(words, np.int32)


def apart(e: Expr, slot: str) -> Expr:
    """`q - k < w` becomes `q < k + w`: one comparison a pair, as the sum is of the slot alone."""

    def moved(x: Expr) -> Expr | None:
        if x.op not in ("lt", "le", "eq", "ne"):
            return None
        left, right = x.args
        if left.op == "sub" and right.number is not None and abs(right.number) < SAFE:
            a, b = left.args
            if _is(a, "q") and _is(b, slot):
                return build(x.op, a, b + right)
            if _is(a, slot) and _is(b, "q"):
                return build(x.op, a - right, b)
        if right.op == "sub" and left.number is not None and abs(left.number) < SAFE:
            a, b = right.args
            if _is(a, "q") and _is(b, slot):
                return build(x.op, left + b, a)
            if _is(a, slot) and _is(b, "q"):
                return build(x.op, b, a - left)
        return None

    return e.rebuild(moved)


def _is(e: Expr, name: str) -> bool:
    return e.op == "var" and e.value == name
