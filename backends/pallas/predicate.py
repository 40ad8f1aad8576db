"""Predicates inside a kernel: the IR's expressions over the pairs of a tile, in registers.

A value stays as narrow as what it depends on (a number, one per query, one per key) until an operation brings
a query and a key together, so that ``q // 64`` costs one division a row and not one a pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import Expr

OPERATIONS = {
    *("const", "bool", "var", "input", "add", "sub", "mul", "floordiv", "mod", "neg", "abs", "min", "max"),
    *("xor", "lt", "le", "eq", "ne", "and", "or", "not", "if"),
}
"""What a kernel computes: everything that needs no memory but the inputs at a query's or a key's place."""


def untranslatable(e: Expr) -> str | None:
    """What of an expression a kernel cannot compute; None where it can."""
    for node in e.walk():
        if node.op not in OPERATIONS:
            return f"`{node.op}`"
        if node.op == "input" and not (node.args[0].op == "var" and str(node.args[0].value) in ("q", "k")):
            return f"an input read at `{node.args[0]}`, neither q nor k"
    return None


@dataclasses.dataclass(frozen=True)
class Frame:
    """A tile of ``shape``. ``cast`` says where in registers the values of some axes lie: said at once, as the
    search for it takes a compiler exponential time. ``flat``: values of one axis have one dimension; else
    two, one of them of size 1."""

    shape: tuple[int, int]
    cast: Callable[[Any, tuple[int, ...]], Any] = lambda value, axes: value
    flat: bool = True

    def shape_of(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of values of some axes."""
        if self.flat or not axes:
            return tuple(self.shape[i] for i in axes)
        return tuple(size if i in axes else 1 for i, size in enumerate(self.shape))

    def widen(self, value: Any, axes: tuple[int, ...], to: tuple[int, ...]) -> Any:
        """Values of some axes, repeated along others."""
        if value.dtype == bool and not self.flat:  # a TPU spreads no truth values
            return lax.ne(self.widen(value.astype(jnp.int32), axes, to), jnp.int32(0))
        places = [to.index(i) for i in axes] if self.flat else list(range(len(value.shape)))
        return self.cast(lax.broadcast_in_dim(value, self.shape_of(to), places), to)


class Lanes:
    """Integers or truth values of a tile: a number, or one for each of ``axes`` (in rising order)."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, axes: tuple[int, ...], frame: Frame) -> None:
        self.value, self.axes, self.frame = value, axes, frame

    def wide(self, axes: tuple[int, ...]) -> Any:
        """The value with these axes."""
        if self.axes == axes:
            return self.value
        return self.frame.widen(self.value, self.axes, axes)

    def _with(self, other: Any, operation: Callable[[Any, Any], Any], swapped: bool = False) -> Lanes:
        if not isinstance(other, Lanes):
            a, b = self.value, _like(self.value, other)
            return Lanes(operation(b, a) if swapped else operation(a, b), self.axes, self.frame)
        axes = tuple(sorted({*self.axes, *other.axes}))
        return Lanes(operation(self.wide(axes), other.wide(axes)), axes, self.frame)

    def map(self, operation: Callable[[Any], Any]) -> Lanes:
        """An operation of one operand."""
        return Lanes(operation(self.value), self.axes, self.frame)

    def __add__(self, other: Any) -> Lanes:
        return self._with(other, lax.add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Lanes:
        return self._with(other, lax.sub)

    def __rsub__(self, other: Any) -> Lanes:
        return self._with(other, lax.sub, swapped=True)

    def __mul__(self, other: Any) -> Lanes:
        return self._with(other, lax.mul)

    __rmul__ = __mul__

    def __neg__(self) -> Lanes:
        return self.map(lax.neg)

    def __abs__(self) -> Lanes:
        return self.map(lambda a: lax.max(a, lax.neg(a)))

    def __floordiv__(self, other: Any) -> Lanes:
        if isinstance(other, int) and other > 0 and other & (other - 1) == 0:
            return self._with(other.bit_length() - 1, lax.shift_right_arithmetic)
        return self._with(other, _floordiv)

    def __rfloordiv__(self, other: Any) -> Lanes:
        return self._with(other, _floordiv, swapped=True)

    def __mod__(self, other: Any) -> Lanes:
        if isinstance(other, int) and other > 0 and other & (other - 1) == 0:
            return self._with(other - 1, lax.bitwise_and)
        return self._with(other, _mod)

    def __rmod__(self, other: Any) -> Lanes:
        return self._with(other, _mod, swapped=True)

    def __lt__(self, other: Any) -> Lanes:
        return self._with(other, lax.lt)

    def __le__(self, other: Any) -> Lanes:
        return self._with(other, lax.le)

    def __gt__(self, other: Any) -> Lanes:
        return self._with(other, lax.gt)

    def __ge__(self, other: Any) -> Lanes:
        return self._with(other, lax.ge)

    def __eq__(self, other: Any) -> Any:
        return self._with(other, lax.eq)

    def __ne__(self, other: Any) -> Any:
        return self._with(other, lax.ne)

    def __and__(self, other: Any) -> Lanes:
        return self._with(other, lax.bitwise_and)

    __rand__ = __and__

    def __or__(self, other: Any) -> Lanes:
        return self._with(other, lax.bitwise_or)

    __ror__ = __or__


def _like(value: Any, number: Any) -> Any:
    """A Python number as an array like another: kernels know no implicit types."""
    return jnp.full(value.shape, number, value.dtype) if value.shape else jnp.asarray(number, value.dtype)


def _floordiv(a: Any, b: Any) -> Any:
    quotient = lax.div(a, b)
    wrong = _beyond(lax.sub(a, lax.mul(quotient, b)), b)
    return lax.select(wrong, lax.sub(quotient, jnp.full_like(a, 1)), quotient)


def _mod(a: Any, b: Any) -> Any:
    rest = lax.rem(a, b)
    return lax.select(_beyond(rest, b), lax.add(rest, b), rest)


def _beyond(rest: Any, b: Any) -> Any:
    """Where division towards zero went beyond the floor: a rest is left, of another sign than the divisor."""
    zero = jnp.full_like(rest, 0)
    return lax.bitwise_and(lax.ne(rest, zero), lax.lt(lax.bitwise_xor(rest, b), zero))


class _Operations:
    """What `evaluate` asks of an array library, over `Lanes` and Python's numbers."""

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        return _pair(a, b, lax.min, min)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return _pair(a, b, lax.max, max)

    @staticmethod
    def bitwise_xor(a: Any, b: Any) -> Any:
        return _pair(a, b, lax.bitwise_xor, lambda x, y: x ^ y)

    @staticmethod
    def logical_not(a: Any) -> Any:
        return a.map(lax.bitwise_not) if isinstance(a, Lanes) else not a

    @staticmethod
    def where(c: Any, a: Any, b: Any) -> Any:
        if not isinstance(c, Lanes):
            return a if c else b
        given = [x for x in (a, b) if isinstance(x, Lanes)]
        axes = tuple(sorted({*c.axes, *(i for x in given for i in x.axes)}))
        like = given[0].wide(axes) if given else jnp.full(c.frame.shape_of(axes), 0, jnp.int32)
        a, b = (x.wide(axes) if isinstance(x, Lanes) else _like(like, x) for x in (a, b))
        which = c.wide(axes)
        if a.dtype == bool:  # which a TPU does not select
            return Lanes(which & a | ~which & b, axes, c.frame)
        return Lanes(lax.select(which, a, b), axes, c.frame)


def _pair(a: Any, b: Any, operation: Callable[[Any, Any], Any], plain: Callable[[Any, Any], Any]) -> Any:
    if isinstance(a, Lanes):
        return a._with(b, operation)
    return b._with(a, operation) if isinstance(b, Lanes) else plain(a, b)


def keep(
    e: Expr,
    q: Lanes,
    k: Lanes,
    inputs: Mapping[str, tuple[Lanes, Lanes]],
) -> Lanes | bool:
    """The predicate over a tile. ``q``, ``k``: the positions of its queries and keys, on an axis each;
    ``inputs``: what each input is at them."""
    env = {"q": q, "k": k}

    def reader(values: tuple[Lanes, Lanes]) -> Callable[[Any], Lanes]:
        def read(position: Any) -> Lanes:
            return values[0] if position is q else values[1]

        return read

    found: Lanes | bool = evaluate(e, env, {n: reader(x) for n, x in inputs.items()}, _Operations)
    return found
