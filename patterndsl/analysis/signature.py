"""When do two boxes of the same size look alike? A signature of what an expression sees of a box.

Write a query of a box that starts at (q0, k0) as q0 + i, a slot as k0 + j. Every integer expression is
then an offset, one number for the box, plus a function of (i, j) that depends on a few more numbers
only, its keys: a sum has none, ``x // P`` and ``x % P`` have the offset of x modulo P, a comparison the
difference of the offsets. Boxes with the same keys hold the same values. What is already decided all
over a box (`ranges.bounds`) needs no keys.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patterndsl.analysis.ranges import QUANTIFIERS, Int64, Range, quantified, varying_bits
from patterndsl.ir.expr import COMPARE_OPS, Expr
from patterndsl.ir.table import Table

Mask = npt.NDArray[np.bool_]
RING = frozenset({"add", "sub", "mul", "neg", "const", "var"})
PACKED = 48  # entries of a table that fit one key


def classes(
    e: Expr, nodes: list[Expr], found: dict[Expr, Range], origin: dict[str, Int64]
) -> tuple[Int64, Int64]:
    """Boxes grouped by what ``e`` sees: for each class one box of it, and for each box its class.

    ``found``: `ranges.bounds` of the boxes; ``origin``: the first value of each free variable, [boxes].
    """
    signature = _Signature(e, nodes, found, origin)
    boxes = len(next(iter(origin.values())))
    code, members = np.zeros(boxes, np.int64), 1
    for column in signature.columns:
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


class _Signature:
    def __init__(
        self, e: Expr, nodes: list[Expr], found: dict[Expr, Range], origin: dict[str, Int64]
    ) -> None:
        self.boxes = len(next(iter(origin.values())))
        self.found = {x: (self.each(found[x][0]), self.each(found[x][1])) for x in nodes}
        self.origin, self.columns = dict(origin), list[Int64]()
        self.ends = {quantified(x)[0]: x.args[0] for x in nodes if x.op in QUANTIFIERS}
        self.need: dict[Expr, Mask] = {e: np.ones(self.boxes, bool)}
        self.offset: dict[Expr, Int64] = {}
        for node in reversed(nodes):
            self.ask(node)
        for node in nodes:
            self.read(node)
        if e.sort != "bool":
            self.columns.append(self.offset[e])

    def each(self, x: Int64) -> Int64:
        return np.broadcast_to(x, self.boxes)

    # -- which values matter -------------------------------------------------------------------------

    def open(self, node: Expr) -> Mask:
        """The boxes where the node's value matters and is not the same all over the box."""
        low, high = self.found[node]
        return self.need[node] & (low < high)

    def ask(self, node: Expr) -> None:
        if node not in self.need:
            return
        active = self.open(node)
        if not active.any() or _residues(node):
            return
        needs = [active] * len(node.args)
        if node.op in ("min", "max"):
            needs = [active & (self.side(node) != 1 - i) for i in (0, 1)]
        elif node.op == "if":
            low, high = self.found[node.args[0]]
            needs = [active, active & (high > 0), active & (low == 0)]
        for a, need in zip(node.args, needs, strict=True):
            self.need[a] = self.need[a] | need if a in self.need else need

    def side(self, node: Expr) -> Int64:
        """Of ``min`` or ``max``: 0 or 1 where one operand is the answer all over the box, else 2."""
        a, b = (self.found[x] for x in node.args)
        if node.op == "max":
            a, b = b, a
        return np.where(a[1] <= b[0], 0, np.where(b[1] <= a[0], 1, 2))

    # -- offsets and keys ----------------------------------------------------------------------------

    def key(self, value: Int64, where: Mask) -> None:
        self.columns.append(np.where(where, value, 0))

    def read(self, node: Expr) -> None:
        if node not in self.need:
            return
        low, high = self.found[node]
        need, decided = self.need[node], low == high
        if node.op not in ("const", "bool", "var"):
            state = np.where(decided, 1 + low, 0) if node.sort == "bool" else decided.astype(np.int64)
            self.key(state, need)
        self.offset[node] = np.zeros(self.boxes, np.int64) if node.sort == "bool" else low
        active = need & ~decided
        if active.any():
            moved = self.shifted(node, active)
            if node.sort != "bool":
                self.offset[node] = np.where(decided, low, moved)

    def shifted(self, node: Expr, active: Mask) -> Int64:
        """The offset of an undecided node; its keys are added."""
        zero = np.zeros(self.boxes, np.int64)
        if node.op == "var":
            name = str(node.value)
            return self.offset[self.ends[name]] if name in self.ends else self.origin[name]
        modulus = _residues(node)
        if modulus:
            for name in sorted(node.args[0].names()):
                start = self.offset[self.ends[name]] if name in self.ends else self.origin[name]
                self.key(start % modulus, active)
            return zero
        a = [self.offset.get(x, zero) for x in node.args]
        number = [x.number for x in node.args]
        if node.op in COMPARE_OPS:
            self.key(a[0] - a[1], active)
            return zero
        match node.op:
            case "add":
                return a[0] + a[1]
            case "sub":
                return a[0] - a[1]
            case "neg":
                return -a[0]
            case "mul" if number[0] is not None or number[1] is not None:
                return a[0] * a[1]
            case "floordiv" if number[1]:
                self.key(a[0] % number[1], active)
                return a[0] // number[1]
            case "mod" if number[1]:
                self.key(a[0] % number[1], active)
            case "abs":
                return self.absolute(node, a[0], active)
            case "min" | "max":
                side = self.side(node)
                self.key(side, active)
                self.key(a[1] - a[0], active & (side == 2))
                return np.where(side == 1, a[1], a[0])
            case "if":
                low, high = self.found[node.args[0]]
                self.key(a[2] - a[1], active & (low != high))
                return np.where(high == 0, a[2], a[1])
            case "xor" | "popcount":
                return self.digits(node, a, active)
            case "lookup":
                self.table(node, a, active)
            case "forall" | "exists":
                self.key(a[1] - a[0], active)
            case "and" | "or" | "not":
                pass
            case _:
                for x in a:
                    self.key(x, active)
        return zero

    def absolute(self, node: Expr, a: Int64, active: Mask) -> Int64:
        low, high = self.found[node.args[0]]
        sign = np.where(low >= 0, 1, np.where(high <= 0, -1, 0))
        self.key(sign, active)
        self.key(a, active & (sign == 0))
        return sign * a

    def digits(self, node: Expr, a: list[Int64], active: Mask) -> Int64:
        """``xor`` and ``popcount`` act on the digits that vary and on those that do not separately."""
        ranges = [self.found[x] for x in node.args]
        m = varying_bits(*ranges)
        plain = np.logical_and.reduce([low >= 0 for low, _ in ranges])
        fixed = [np.where(plain, low >> m << m, 0) for low, _ in ranges]
        for x, prefix in zip(a, fixed, strict=True):
            self.key(x - prefix, active)
        if node.op == "xor":
            return np.bitwise_xor(*fixed)
        ones: Int64 = np.bitwise_count(fixed[0]).astype(np.int64)
        return ones

    def table(self, node: Expr, a: list[Int64], active: Mask) -> None:
        """What the table holds in the box where that is little, else where in the table the box is."""
        assert isinstance(node.value, Table)
        (r0, r1), (c0, c1) = (self.found[x] for x in node.args)
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
