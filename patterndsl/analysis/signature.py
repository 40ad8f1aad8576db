"""When do two boxes of the same size look alike? A signature of what a predicate sees of a box.

Write a query of a box that starts at (q0, k0) as q0 + i, a slot as k0 + j. Every integer expression is then
an offset, one number for the box, plus a function of (i, j) that depends on a few more numbers only, its
keys: a sum has none, ``x // P`` and ``x % P`` have the offset of x modulo P, a comparison the difference of
the offsets. Boxes with the same keys hold the same values. What strided intervals (`ir.interval`) decide all
over a box needs no keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from patterndsl.ir.expr import COMPARE_OPS, Expr
from patterndsl.ir.interval import EXACT, Interval, Truth, bound_range, bound_variable, evaluate_all
from patterndsl.ir.linear import is_sum, program
from patterndsl.ir.table import Table

Int64: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Env: TypeAlias = Mapping[str, Interval]

QUANTIFIERS = ("forall", "exists")
RING = frozenset({"add", "sub", "mul", "neg", "const", "var"})
PACKED = 48  # entries of a table that fit one key


def classes(e: Expr, env: Env, origin: Mapping[str, Int64]) -> tuple[Int64, Int64]:
    """Boxes grouped by what ``e`` sees: for each class one box of it, and for each box its class.

    ``env``: the intervals of the variables over each box; ``origin``: their first values, [boxes].
    """
    boxes = len(next(iter(origin.values())))
    code, members = np.zeros(boxes, np.int64), 1
    for column in _columns(e, env, origin):
        if column.min() == column.max():
            continue
        values, part = np.unique(column, return_inverse=True)
        distinct, code = np.unique(code * len(values) + part, return_inverse=True)
        members = len(distinct)
        if members == boxes:
            break
    first = np.zeros(members, np.int64)
    first[code[::-1]] = np.arange(boxes - 1, -1, -1)
    return first, code


def _columns(e: Expr, env: Env, origin: Mapping[str, Int64]) -> list[Int64]:
    boxes = len(next(iter(origin.values())))
    scope = _Scope(e, env, origin, np.ones(boxes, np.bool_))
    if not isinstance(scope.value[e], Truth):
        scope.columns.append(scope.offset[e])
    return scope.columns


class _Scope:
    """The signature of an expression where ``need`` says that its value matters; the body of a quantifier is
    a scope of its own."""

    def __init__(self, e: Expr, env: Env, origin: Mapping[str, Int64], need: Mask) -> None:
        self.env, self.origin, self.boxes = env, origin, len(need)
        self.columns: list[Int64] = []
        self.offset: dict[Expr, Int64] = {}
        self.value = evaluate_all(e, env, None, np)
        order, self.forms = program(e)
        self.need = {e: need}
        for node in reversed(order):
            self.ask(node)
        for node in order:
            if node in self.need:
                self.read(node)

    # -- which values matter -------------------------------------------------------------------------

    def ends(self, node: Expr) -> tuple[Int64, Int64]:
        """Least and greatest value in each box; of a truth value, 0 and 1."""
        value = self.value[node]
        if isinstance(value, Truth):
            value = Interval(np.asarray(value.always, np.int64), 1 - np.asarray(value.never, np.int64))
        low, high = np.asarray(value.lo, np.int64), np.asarray(value.hi, np.int64)
        return np.broadcast_to(low, self.boxes), np.broadcast_to(high, self.boxes)

    def parts(self, node: Expr) -> tuple[Expr, ...]:
        """What the node's value is made from."""
        if is_sum(node, self.forms):
            return tuple(atom for atom, _ in self.forms[node].terms)
        return node.args[:2] if node.op in QUANTIFIERS else node.args

    def ask(self, node: Expr) -> None:
        if node not in self.need or _residues(node):
            return
        low, high = self.ends(node)
        active = self.need[node] & (low < high)
        if not active.any():
            return
        parts = self.parts(node)
        needs = [active] * len(parts)
        if node.op in ("min", "max"):
            side = self.side(node)
            needs = [active & (side != 1), active & (side != 0)]
        elif node.op == "if":
            low, high = self.ends(node.args[0])
            needs = [active, active & (high > 0), active & (low == 0)]
        for part, need in zip(parts, needs, strict=True):
            self.need[part] = self.need[part] | need if part in self.need else need

    def side(self, node: Expr) -> Int64:
        """Of ``min`` or ``max``: 0 or 1 where one operand is the answer all over the box, else 2."""
        a, b = (self.ends(x) for x in node.args)
        if node.op == "max":
            a, b = b, a
        return np.where(a[1] <= b[0], 0, np.where(b[1] <= a[0], 1, 2))

    # -- offsets and keys ----------------------------------------------------------------------------

    def key(self, value: Int64, where: Mask) -> None:
        self.columns.append(np.where(where, value, 0))

    def read(self, node: Expr) -> None:
        low, high = self.ends(node)
        need, decided = self.need[node], low == high
        truth = isinstance(self.value[node], Truth)
        if node.op not in ("const", "bool", "var"):
            self.key(np.where(decided, 1 + low if truth else 1, 0), need)
        self.offset[node] = np.zeros(self.boxes, np.int64) if truth else low
        active = need & ~decided
        if active.any():
            moved = self.shifted(node, active)
            if not truth:
                self.offset[node] = np.where(decided, low, moved)

    def shifted(self, node: Expr, active: Mask) -> Int64:
        """The offset of an undecided node; its keys are added."""
        zero = np.zeros(self.boxes, np.int64)
        if is_sum(node, self.forms):
            form = self.forms[node]
            total = zero + form.constant
            for atom, c in form.terms:
                total = total + c * self.offset[atom]
            if node.op in COMPARE_OPS:
                self.key(total, active)
            return total
        if node.op == "var":
            return self.origin[str(node.value)]
        modulus = _residues(node)
        if modulus:
            for name in sorted(node.args[0].names()):
                self.key(self.origin[name] % modulus, active)
            return zero
        a = [self.offset.get(x, zero) for x in self.parts(node)]
        divisor = node.args[1].number if node.op in ("floordiv", "mod") else None
        match node.op:
            case "floordiv" if divisor:
                self.key(a[0] % divisor, active)
                return a[0] // divisor
            case "mod" if divisor:
                self.key(a[0] % divisor, active)
            case "abs":
                return self.absolute(node, a[0], active)
            case "min" | "max":
                side = self.side(node)
                self.key(side, active)
                self.key(a[1] - a[0], active & (side == 2))
                return np.where(side == 1, a[1], a[0])
            case "if":
                low, high = self.ends(node.args[0])
                self.key(a[2] - a[1], active & (low != high))
                return np.where(high == 0, a[2], a[1])
            case "xor" | "popcount":
                return self.digits(node, a, active)
            case "lookup":
                self.table(node, a, active)
            case "forall" | "exists":
                self.quantifier(node, a, active)
            case "and" | "or" | "not":
                pass
            case _:
                for x in a:
                    self.key(x, active)
        return zero

    def absolute(self, node: Expr, a: Int64, active: Mask) -> Int64:
        low, high = self.ends(node.args[0])
        sign = np.where(low >= 0, 1, np.where(high <= 0, -1, 0))
        self.key(sign, active)
        self.key(a, active & (sign == 0))
        return sign * a

    def digits(self, node: Expr, a: list[Int64], active: Mask) -> Int64:
        """``xor`` and ``popcount`` act on the digits that vary in a box and on the others separately."""
        ranges = [self.ends(x) for x in node.args]
        varying = np.bitwise_or.reduce([low ^ high for low, high in ranges])
        for shift in (1, 2, 4, 8, 16, 32):
            varying = varying | (varying >> shift)
        plain = np.logical_and.reduce([low >= 0 for low, _ in ranges])
        fixed = [np.where(plain, low & ~varying, 0) for low, _ in ranges]
        for x, prefix in zip(a, fixed, strict=True):
            self.key(x - prefix, active)
        if node.op == "xor":
            return np.bitwise_xor(*fixed)
        return np.asarray(np.bitwise_count(fixed[0]), np.int64)

    def quantifier(self, node: Expr, a: list[Int64], active: Mask) -> None:
        self.key(a[1] - a[0], active)
        name, _ = bound_variable(node)
        first, last = (Interval(*self.ends(x)) for x in node.args[:2])
        env = {**self.env, name: bound_range(node, first, last, np)}
        body = _Scope(node.args[2], env, {**self.origin, name: a[0]}, active)
        self.columns += body.columns

    def table(self, node: Expr, a: list[Int64], active: Mask) -> None:
        """What the table holds in the box where that is little, else where in the table the box is."""
        assert isinstance(node.value, Table)
        (r0, r1), (c0, c1) = (self.ends(x) for x in node.args)
        rows, columns = r1 - r0 + 1, c1 - c0 + 1
        small = active & (rows * columns <= PACKED)
        packed = np.zeros(self.boxes, np.int64)
        for i in range(int(rows[small].max(initial=0))):
            for j in range(int(columns[small].max(initial=0))):
                at = np.flatnonzero(small & (i < rows) & (j < columns))
                bit = node.value.contains(r0[at] + i, c0[at] + j, np)
                packed[at] |= bit.astype(np.int64) << (i * columns[at] + j)
        self.key(small.astype(np.int64), active)
        self.key(packed, small)
        self.key(columns, small)
        self.key(np.where(small, a[0] - r0, a[0]), active)
        self.key(np.where(small, a[1] - c0, a[1]), active)


def _residues(node: Expr) -> int | None:
    """P, where the node is a polynomial modulo P that is not linear: only the variables' residues matter
    then."""
    if node.op != "mod" or not node.args[1].number:
        return None
    inside = node.args[0].walk()
    if any(x.op not in RING for x in inside):
        return None
    products = [x for x in inside if x.op == "mul" and all(a.number is None for a in x.args)]
    return node.args[1].number if products else None


def fits(e: Expr, env: Env) -> bool:
    """Every value on the way to ``e`` fits 64 bits over one box (of Python integers), with room to spare."""
    value: dict[Expr, Any] = evaluate_all(e, env, None, EXACT)
    order, forms = program(e)
    for node in order:
        size = 0
        if is_sum(node, forms):
            form = forms[node]
            size = abs(form.constant) + sum(abs(c) * _size(value[atom]) for atom, c in form.terms)
        elif isinstance(value[node], Interval):
            size = _size(value[node])
        if size >= 2**62:
            return False
        if node.op in QUANTIFIERS:
            name, _ = bound_variable(node)
            first, last = value[node.args[0]], value[node.args[1]]
            if not fits(node.args[2], {**env, name: bound_range(node, first, last, EXACT)}):
                return False
    return True


def _size(x: Interval) -> int:
    return max(abs(int(x.lo)), abs(int(x.hi)))
