"""From a module to one pattern tree without names: calls inlined, params set, layer and head picked, n
known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.names import UnknownParam
from patterndsl.diagnostics.values import (
    DivisionByZero,
    NotPositive,
    NotWhole,
    NoValue,
    RangesMismatch,
    ValueTooLarge,
)
from patterndsl.ir.expr import Expr, as_expr, build, evaluate_number
from patterndsl.ir.nodes import Call, Heads, Layers, Module, Node, Pattern, Where
from patterndsl.patterns.base import Kind, parameters

LARGEST = 10**15
Spans = Mapping[Node, Any]


def transform(
    node: Node, change: Callable[[Node], Node], number: Callable[[Expr], Expr] = lambda e: e
) -> Node:
    """Rebuild bottom-up: ``change`` of every node over changed children, ``number`` of every expression."""
    done: dict[Node, Node] = {}

    def go(p: Node) -> Node:
        if p not in done:
            done[p] = change(p.rebuild(go, number))
        return done[p]

    return go(node)


def inline(module: Module) -> Module:
    """Calls of the module's pattern functions, replaced by their bodies; spans follow."""
    spans = dict(module.spans)

    def expand(node: Node) -> Node:
        def change(p: Node) -> Node:
            if not isinstance(p, Call):
                return p
            function = module.functions[p.function]
            env = {f"%{a}": v for a, v in zip(function.arguments, p.arguments, strict=True)}
            return expand(substitute(function.body, env, spans))

        return transform(node, change)

    return dataclasses.replace(module, main=expand(module.main), functions={}, spans=spans)


def substitute(node: Node, env: Mapping[str, Expr | int], spans: dict[Node, Any] | None = None) -> Node:
    """Variables replaced throughout; what had a span keeps it."""

    done: dict[Node, Node] = {}

    def go(p: Node) -> Node:
        if p not in done:
            done[p] = new = p.rebuild(go, lambda e: e.subs(env))
            if spans is not None and p in spans:
                spans.setdefault(new, spans[p])
        return done[p]

    return go(node)


def set_params(module: Module, params: Mapping[str, int] | None = None) -> Module:
    """Params replaced by their values, the given ones before the defaults.

    A default may use params that are declared before it (lowering puts them in that order).
    """
    given = {str(k): v for k, v in (params or {}).items()}
    for name, value in given.items():
        if name not in module.params:
            raise SpecError(UnknownParam(name=name, candidates=tuple(module.params)))
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise SpecError(NotWhole(expression=str(value), argument=name))
    env: dict[str, Expr | int] = {}
    for name, default in module.params.items():
        env[f"${name}"] = as_expr(given[name].__index__()) if name in given else default.subs(env)
    spans = dict(module.spans)
    functions = {
        name: dataclasses.replace(f, body=substitute(f.body, env, spans))
        for name, f in module.functions.items()
    }
    main = substitute(module.main, env, spans)
    return dataclasses.replace(module, main=main, params={}, functions=functions, spans=spans)


def pick_layer(node: Node, layer: int) -> Node:
    """`layers {…}` replaced by what it says of this layer."""

    def change(p: Node) -> Node:
        if not isinstance(p, Layers):
            return p
        picked = p.pick(layer)
        if picked is None:
            raise SpecError(RangesMismatch(kind="layers", named=_named(p), count=layer + 1))
        return picked

    return transform(node, change)


def pick_head(node: Node, head: int, num_heads: int | None) -> Node:
    """`heads {…}`, ``h`` and ``num_heads`` replaced by what they are for this head."""
    env: dict[str, Expr | int] = {"h": head} if num_heads is None else {"h": head, "num_heads": num_heads}

    def change(p: Node) -> Node:
        if not isinstance(p, Heads):
            return p
        picked = p.pick(head)
        beyond = p.otherwise is None and num_heads is not None and _named(p) not in (num_heads, None)
        if picked is None or beyond:
            raise SpecError(RangesMismatch(kind="heads", named=_named(p) or 0, count=num_heads or head + 1))
        return picked

    return transform(node, change, lambda e: e.subs(env))


def names(node: Node) -> frozenset[str]:
    """The variables that the numbers and predicates of a pattern read: ``h``, ``num_heads``, ``n`` …"""
    found: set[str] = set()

    def note(e: Expr) -> Expr:
        found.update(e.names())
        return e

    transform(node, lambda p: p, note)
    return frozenset(found)


def _named(p: Heads | Layers) -> int:
    """How many heads or layers the cases name (0 where they are open-ended)."""
    stops = [r.stop for r in p.ranges]
    return 0 if None in stops or not stops else max(s for s in stops if s is not None)


def at_length(node: Node, n: int, spans: Spans | None = None) -> Node:
    """Every number evaluated at this n, every argument checked. Raises SpecError."""
    spans = spans or {}

    def number(e: Expr, span: Any, name: str = "") -> Expr:
        try:
            value = evaluate_number(e, {"n": n})
        except ZeroDivisionError:
            raise SpecError(DivisionByZero(operator="//", n=n, span=span)) from None
        except ValueError:
            raise SpecError(NoValue(expression=str(e), n=n, span=span)) from None
        except OverflowError:
            raise SpecError(ValueTooLarge(expression=str(e), limit=LARGEST, n=n, span=span)) from None
        if isinstance(value, bool):
            return as_expr(value)
        if e.sort == "real" or not isinstance(value, int):
            raise SpecError(NotWhole(expression=str(e), argument=name, span=span))
        if abs(value) > LARGEST:
            raise SpecError(ValueTooLarge(expression=str(e), limit=LARGEST, n=n, span=span))
        return as_expr(value)

    done: dict[Node, Node] = {}

    def go(p: Node) -> Node:
        if p in done:
            return done[p]
        span = spans.get(p)
        if isinstance(p, Where):
            new: Node = Where(_predicate(p.keep, lambda e: number(e, span)))
        elif isinstance(p, Pattern):
            made = p.rebuild(go, lambda e: number(e, span))
            assert isinstance(made, Pattern)
            check_arguments(made, n, span)
            new = made
        else:
            new = p.rebuild(go)
        done[p] = new
        return new

    return go(node)


def _predicate(e: Expr, number: Callable[[Expr], Expr]) -> Expr:
    """Evaluate the largest subexpressions that are numbers over n."""
    free, done = e.free(), dict[Expr, Expr]()

    def go(x: Expr) -> Expr:
        if x not in done:
            known = not free[x] - {"n"} and not x.inputs() and x.sort != "bool"
            done[x] = number(x) if known else build(x.op, *(go(a) for a in x.args), value=x.value)
        return done[x]

    return go(e)


def check_arguments(p: Pattern, n: int | None, span: Any = None) -> None:
    """Raise SpecError where a number is below its least, or where the pattern's own check says no."""
    for parameter in parameters(type(p)):
        value = getattr(p, parameter.name)
        for x in value if isinstance(value, tuple) else (value,):
            _least(parameter.name, x, parameter.kind, n, span)
    try:
        p.check(n)
    except SpecError as error:
        raise SpecError(d.at(span) for d in error.diagnostics) from None


def _least(name: str, x: object, kind: Kind, n: int | None, span: Any) -> None:
    if isinstance(x, Expr) and x.number is not None and kind.least is not None and x.number < kind.least:
        raise SpecError(NotPositive(argument=name, value=x.number, minimum=kind.least, n=n, span=span))


__all__ = [
    "at_length",
    "check_arguments",
    "inline",
    "pick_head",
    "pick_layer",
    "set_params",
    "substitute",
    "transform",
]
