"""Checks that several built-ins share. Each raises `SpecError`; its span is added by `ir.resolve`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from patterndsl.ir.expr import Expr
from patterndsl.ir.nodes import Node, Pattern, Tokens

if TYPE_CHECKING:
    from patterndsl.backends.facts import Data


def bad(p: Pattern, reason: str, n: int | None = None) -> NoReturn:
    """Raise `SpecError`: the arguments do not fit together."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.values import BadValue

    raise SpecError(BadValue(pattern=p.name, reason=reason, n=n))


def one_of(p: Pattern, *groups: tuple[str, ...]) -> None:
    """Arguments of exactly one of the groups are given."""
    given = [g for g in groups if any(getattr(p, name) is not None for name in g)]
    if len(given) != 1:
        choice = " or ".join(" and/or ".join(f"`{name}`" for name in g) for g in groups)
        bad(p, f"give either {choice}")


def tokens_in_range(p: Pattern, tokens: Tokens, n: int | None) -> None:
    """Single positions exist at this n; steps are positive."""
    from patterndsl.diagnostics import SpecError
    from patterndsl.diagnostics.values import TokenOutOfRange

    for item in tokens.items:
        if isinstance(item, tuple):
            step = item[2].number if item[2] is not None else 1
            if step is not None and step < 1:
                bad(p, f"the step of a range must be at least 1, but is {step}")
        elif n is not None and item.number is not None and not -n <= item.number < n:
            raise SpecError(TokenOutOfRange(token=item.number, n=n))


def grid_covers(p: Pattern, shape: tuple[Expr, ...], n: int | None) -> None:
    """The grid has exactly n places."""
    numbers = [s.number for s in shape]
    if n is not None and None not in numbers:
        places = math.prod(x for x in numbers if x is not None)
        if places != n:
            shown = "×".join(str(x) for x in numbers)
            bad(p, f"a grid of {shown} has {places} places, not one for each of the keys", n)


def axis_exists(p: Pattern, axis: Expr, shape: tuple[Expr, ...]) -> None:
    if axis.number is not None and axis.number >= len(shape):
        bad(p, f"axis {axis.number} of a shape with {len(shape)} axes (they count from 0)")


def same_axes(p: Pattern, shape: tuple[Expr, ...], *names: str) -> None:
    """Each argument is one value, or one for each axis of the shape."""
    for name in names:
        value: Any = getattr(p, name)
        if isinstance(value, tuple) and len(value) not in (1, len(shape)):
            bad(p, f"`{name}` has {len(value)} values for a shape with {len(shape)} axes")


def window_fits(p: Any) -> None:
    """NATTEN: window · dilation ≤ extent, stride ≤ window, causal is 0 or 1, on each axis."""
    axes = range(len(p.shape))

    def of(name: str, axis: int) -> int | None:
        values = getattr(p, name)
        if isinstance(values, bool):
            return int(values)
        value: Expr = values[axis] if len(values) > 1 else values[0]
        return value.number

    for axis in axes:
        extent, window, dilation = p.shape[axis].number, of("window", axis), of("dilation", axis)
        stride, causal = of("stride", axis), of("causal", axis)
        if None in (extent, window, dilation, stride, causal):
            continue
        assert extent is not None and window is not None and dilation is not None and stride is not None
        if window * dilation > extent:
            bad(
                p, f"window {window} times dilation {dilation} is larger than axis {axis}, which has {extent}"
            )
        if stride > window:
            bad(p, f"stride {stride} is larger than window {window} on axis {axis}")
        if causal not in (0, 1):
            bad(p, f"`causal` is true or false (or a list of 0 and 1), not {causal}")


def tile_window_fits(p: Any) -> None:
    """The window has no more tiles than the axis."""
    for axis, extent in enumerate(p.shape):
        tile = (p.tile[axis] if len(p.tile) > 1 else p.tile[0]).number
        window = (p.window[axis] if len(p.window) > 1 else p.window[0]).number
        if None not in (extent.number, tile, window) and window > -(-extent.number // tile):
            bad(p, f"a window of {window} tiles on axis {axis}, which has {-(-extent.number // tile)}")


def nested_at_most(p: Pattern, most: int) -> None:
    """No more than so many of this pattern stand within each other."""
    from patterndsl.ir.normal import postorder

    depth: dict[Node, int] = {}
    for node in postorder(p):
        depth[node] = (type(node) is type(p)) + max((depth[m] for m in node.children), default=0)
    if depth[p] > most:
        bad(p, f"{depth[p]} within each other, of at most {most}")


def without_choice(p: Pattern, operand: Node) -> None:
    """The operand is not chosen from the data."""
    from patterndsl.diagnostics import ChoiceUnder, SpecError

    if operand.holds_choice:
        raise SpecError(ChoiceUnder(operator=f"{p.name}()", pattern=str(operand)))


def evaluable(e: Expr, x: Data, last: Mapping[str, int]) -> Expr:
    """A predicate over ``q`` and variables of 0 … ``last``, simplified for the queries of a call. Raises
    `SpecError` where it has no value in int32 at some position."""
    from patterndsl.diagnostics import DivisionByZero, SpecError, ValueTooLarge
    from patterndsl.ir.interval import Interval
    from patterndsl.ir.ranges import INT32, BeyondInt32, ZeroDivisor, check_ranges, simplify_over

    env = {name: Interval(0, end) for name, end in last.items()}
    if isinstance(x.q_offset, int):
        env["q"] = Interval(x.q_offset, x.q_offset + x.n_q - 1)
        e = simplify_over(e, env)
    else:
        env["q"] = Interval(-(x.n + x.n_q), x.n + x.n_q)
    try:
        check_ranges(e, env)
    except BeyondInt32 as error:
        raise SpecError(ValueTooLarge(expression=str(error.expression), limit=INT32 - 1, n=x.n)) from None
    except ZeroDivisor as error:
        raise SpecError(DivisionByZero(operator=error.operator, n=x.n)) from None
    return e
