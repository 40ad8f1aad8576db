"""What a built-in pattern is: one frozen dataclass in one file, registered by `@pattern`.

The fields are the arguments, in order, as a spec writes them; their annotation (below) says what they take.
The docstring, ``growth``, ``source`` and ``examples`` are the documentation. ``keep`` is the definition: the
dense mask, the intervals, the exact sets and the kernels' inline test are all read off it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, dataclass_transform

from patterndsl.ir.expr import Expr, all_of, any_of, as_expr, maximum, where
from patterndsl.ir.nodes import Node, Pattern, Tokens

P = TypeVar("P", bound=Pattern)
Sort = Literal["number", "decimal", "tokens", "shape", "pattern", "string", "flag", "input"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an argument takes. ``least``: the smallest number allowed (of each item of a shape, too).
    ``holds``: the kind of an input. ``function``: in Python a function will do, too."""

    sort: Sort
    least: int | None = None
    choices: tuple[str, ...] = ()
    holds: str = "token"
    function: bool = False


Number: TypeAlias = Annotated[Expr, Kind("number")]
Count: TypeAlias = Annotated[Expr, Kind("number", 0)]
Size: TypeAlias = Annotated[Expr, Kind("number", 1)]
Share: TypeAlias = Annotated[float, Kind("decimal")]
TokenList: TypeAlias = Annotated[Tokens, Kind("tokens")]
Grid: TypeAlias = Annotated[tuple[Expr, ...], Kind("shape", 1)]  # one number for all axes, or a list of them
Counts: TypeAlias = Annotated[tuple[Expr, ...], Kind("shape", 0)]
Operand: TypeAlias = Annotated[Node, Kind("pattern")]
InputName: TypeAlias = Annotated[str, Kind("input")]
Centroids: TypeAlias = Annotated[str, Kind("input", holds="centroids")]
Flag: TypeAlias = Annotated[bool, Kind("flag")]
Reduce: TypeAlias = Annotated[Any, Kind("string", choices=("mean", "max", "first", "last"), function=True)]
Weight: TypeAlias = Annotated[str, Kind("string", choices=("count", "one"))]
Of: TypeAlias = Annotated[str, Kind("string", choices=("tokens", "summaries"))]

REGISTRY: dict[str, type[Pattern]] = {}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An argument of a pattern: its name, kind and default (`REQUIRED` where there is none)."""

    name: str
    kind: Kind
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def optional(self) -> bool:
        """May be left unset (``None``; a spec writes ``auto``)."""
        return self.default is None


REQUIRED = object()


@dataclass_transform(frozen_default=True, eq_default=False)
def pattern(cls: type[P]) -> type[P]:
    """Register a built-in pattern. Raises TypeError where its documentation is incomplete."""
    docs = inspect.getdoc(cls) if cls.__doc__ else None
    if not docs or not getattr(cls, "examples", ()) or not getattr(cls, "growth", ""):
        raise TypeError(f"pattern {cls.__name__} needs a docstring, a growth and examples")
    made = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    made.__doc__ = docs
    if made.name in REGISTRY:
        raise TypeError(f"two patterns are named {made.name!r}")
    REGISTRY[made.name] = made
    return made


@functools.cache
def parameters(cls: type[Pattern]) -> tuple[Parameter, ...]:
    """The arguments of a pattern, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for f in dataclasses.fields(cls):
        default = REQUIRED if f.default is dataclasses.MISSING else f.default
        found.append(Parameter(f.name, _kind(hints[f.name]), default))
    return tuple(found)


def _kind(hint: Any) -> Kind:
    for part in (hint, *typing.get_args(hint)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Kind):
                return meta
    raise TypeError(f"{hint} says no kind of argument")


def ints(values: tuple[Expr, ...]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def per_axis(values: tuple[Expr, ...], axes: int) -> tuple[int, ...]:
    """One number for each axis, a single one being repeated."""
    return ints(values * axes if len(values) == 1 else values)


def in_tokens(x: Expr, tokens: Tokens, n: Expr) -> Expr:
    """``x`` is one of the tokens; slices are cut to 0 … n as in Python."""
    return any_of(*(_in_item(x, item, n) for item in tokens.items))


def _in_item(x: Expr, item: Expr | tuple[Expr | None, Expr | None, Expr | None], n: Expr) -> Expr:
    if isinstance(item, Expr):
        return x.eq(_from_end(item, n))
    start, stop, step = item
    tests = [x >= 0, x < n]
    low: Expr | int = 0
    if start is not None:
        low = _from_end(start, n)
        if start.number is None or start.number < 0:
            low = maximum(low, 0)
        tests.append(x >= low)
    if stop is not None:
        tests.append(x < _from_end(stop, n))
    if step is not None:
        tests.append(((x - low) % step).eq(0))
    return all_of(*tests)


def _from_end(i: Expr, n: Expr) -> Expr:
    if i.number is None:
        return where(i < 0, n + i, i)
    return n + i if i.number < 0 else i


def token_count(tokens: Tokens, n: Expr) -> Expr:
    """An upper bound on how many tokens the list names, as a number over n."""
    total = as_expr(0)
    for item in tokens.items:
        if isinstance(item, Expr):
            total = total + 1
            continue
        start, stop, step = item
        low = start if start is not None else as_expr(0)
        high = stop if stop is not None else n
        if low.number is not None and low.number < 0 and stop is None:
            span: Expr = as_expr(-low.number)
        elif high.number is not None and high.number < 0:
            span = n
        else:
            span = high - low
        total = total + (span if step is None else span // step + 1)
    return total


def coordinates(x: Expr, shape: tuple[int, ...]) -> Iterator[Expr]:
    """The coordinates of a position on a row-major grid."""
    stride = 1
    for extent in shape[1:]:
        stride *= extent
    for axis, extent in enumerate(shape):
        yield x // stride if axis == 0 else x // stride % extent
        if axis + 1 < len(shape):
            stride //= shape[axis + 1]


def even_cuts(count: int, most: int) -> list[int]:
    """0 … ``count`` cut into as few runs of at most ``most`` items as can be, about equally long: where they
    begin, and the end."""
    runs = -(-count // most)
    return [count * i // runs for i in range(runs + 1)]
