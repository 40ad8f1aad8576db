"""Python constructors: each built-in pattern as a function with the arguments that a spec gives it.

    spec = causal & (local(128) | global_(tokens=[0]) | hierarchical(factor=4))

Numbers may use ``n``: ``strided(ceil(sqrt(n)))``. `pattern_function(name)` makes them all from the registry,
so a new pattern needs nothing here.
"""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.types import MissingArgument, NotAChoice, NotInPredicates, WrongType
from patterndsl.diagnostics.values import EmptySelector, NotWhole, RangesOverlap
from patterndsl.ir.expr import COMPARE_OPS, NO_BOOL, REAL_OPS, ROUND_OPS, Expr, K, N, Q, as_expr, build, read
from patterndsl.ir.nodes import Heads, Layers, Mix, Module, Node, Pattern, Range, Tokens, Where, in_two
from patterndsl.ir.resolve import check_arguments
from patterndsl.patterns.base import Kind, Parameter, parameters
from patterndsl.spec import Spec, as_spec, join_modules

n = N
"""The number of keys, in arguments of constructors."""


def sqrt(x: Expr | int) -> Expr:
    """The square root; round it with `ceil` or `floor` before it is used as an argument."""
    return build("sqrt", x)


def log2(x: Expr | int) -> Expr:
    """The binary logarithm; round it with `ceil` or `floor` before it is used as an argument."""
    return build("log2", x)


def ceil(x: Expr | int) -> Expr:
    """The next whole number up."""
    return build("ceil", x)


def floor(x: Expr | int) -> Expr:
    """The next whole number down."""
    return build("floor", x)


class Input:
    """A run-time integer array, one value per token: ``doc = Input("doc")``, then ``doc[q]`` and ``doc[k]``;
    or, where `cluster` takes it, the centroids."""

    def __init__(self, name: str) -> None:
        if not name.isidentifier():
            raise ValueError(f"the name of an input is an identifier, not {name!r}")
        self.name = name

    def __getitem__(self, position: Expr) -> Expr:
        return read(self.name, position)


def where(predicate: Callable[[Expr, Expr], Expr | bool]) -> Spec:
    """The pairs for which ``predicate(q, k)`` holds: ``where(lambda q, k: (k < 4) & (q - k <= n // 2))``.

    Comparisons are joined by ``&``, ``|`` and ``~``; equality is ``q.eq(k)``, inequality ``q.ne(k)``. A
    predicate that comes out as a Python bool raises TypeError: ``==`` would be false for every pair.
    """
    found = predicate(Q, K)
    if isinstance(found, bool):
        raise TypeError(NO_BOOL)
    keep = as_expr(found)
    if keep.sort != "bool":
        raise SpecError(WrongType(expected="a comparison", found=f"the number {keep}", context="in `where`"))
    _check_whole(keep)
    return Spec(Module(Where(keep), inputs=dict.fromkeys(sorted(keep.inputs()), "token")))


def _check_whole(keep: Expr) -> None:
    """Refuse what the language refuses in a predicate: all that leaves the whole numbers for a while."""
    for e in keep.walk():
        if e.op in REAL_OPS | ROUND_OPS and (e.names() & {"q", "k"} or e.inputs()):
            raise SpecError(NotInPredicates(operation={"div": "/", "pow": "**"}.get(e.op, e.op)))
        if e.op in COMPARE_OPS:
            for operand in e.args:
                if operand.sort == "real":
                    raise SpecError(NotWhole(expression=str(operand)))


def mix(*branches: Spec | str) -> Spec:
    """Separately normalised branches, combined by run-time gates [B, T, N, branches]."""
    specs = [as_spec(b) for b in branches]
    if len(specs) < 2:
        raise SpecError(MissingArgument(pattern="mix", names=("at least two branches",)))
    return _joined(specs, Mix(tuple(s.module.main for s in specs)))


def heads(cases: Mapping[Any, Spec | str]) -> Spec:
    """A pattern for each query head: ``heads({range(0, 4): local(64), range(4, 8): strided(64), "_":
    full})``.

    Keys are a number, a `range`, a `slice` (from Python 3.12 on), or ``"_"`` for the rest.
    """
    return _cases(Heads, cases)


def layers(cases: Mapping[Any, Spec | str]) -> Spec:
    """A pattern for each layer: ``layers({"every 6": full, "_": local(1024)})``; the first case that fits
    wins.

    Keys are as for `heads`, and ``"every m"`` (layers m − 1, 2m − 1, …).
    """
    return _cases(Layers, cases)


def _cases(kind: type[Heads] | type[Layers], cases: Mapping[Any, Spec | str]) -> Spec:
    name = kind.__name__.lower()
    if not isinstance(cases, Mapping):
        raise TypeError(f'`{name}` takes a dict of cases, such as {{range(0, 4): a, "_": b}}, not {cases!r}')
    specs = {key: as_spec(p) for key, p in cases.items()}
    if not specs:
        raise SpecError(MissingArgument(pattern=name, names=("at least one case",)))
    rest = specs.pop("_", None)
    ranges = tuple(_range(key) for key in specs)
    if kind is Heads:
        both = in_two(ranges)
        if both is not None:
            raise SpecError(RangesOverlap(kind=name, index=both))
    node = kind(
        ranges,
        tuple(s.module.main for s in specs.values()),
        None if rest is None else rest.module.main,
    )
    return _joined([*specs.values(), *([] if rest is None else [rest])], node)


def _range(key: Any) -> Range:
    found = None
    if isinstance(key, str) and key.startswith("every "):
        step = int(key.removeprefix("every "))
        found = Range(step - 1, None, step)
    elif isinstance(key, int) and not isinstance(key, bool):
        found = Range(key, key + 1)
    elif isinstance(key, (range, slice)):
        found = Range(key.start or 0, key.stop, key.step or 1)
    if found is not None:
        if found.start < 0 or found.step < 1 or (found.stop is not None and found.stop <= found.start):
            raise SpecError(EmptySelector(selector=str(key)))
        return found
    raise TypeError(f'a case is a number, a range, a slice, "every m" or "_", not {key!r}')


def _joined(specs: list[Spec], node: Node) -> Spec:
    module = functools.reduce(join_modules, (s.module for s in specs))
    return Spec(Module(node, module.params, module.inputs, module.functions, module.spans))


def pattern_function(cls: type[Pattern]) -> Callable[..., Spec] | Spec:
    """The constructor of a built-in; one without arguments is a spec itself (``causal``)."""
    wanted = parameters(cls)
    if not wanted:
        return Spec(Module(cls()))

    def construct(*args: Any, **kwargs: Any) -> Spec:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{cls.name}{signature}: {error}") from None
        given.apply_defaults()
        specs: list[Spec] = []
        inputs: dict[str, str] = {}
        values = [_argument(cls, p, given.arguments[p.name], specs, inputs) for p in wanted]
        node = cls(*values)
        check_arguments(node, None)
        base = Spec(Module(node, inputs=inputs))
        return _joined([base, *specs], node)

    empty = inspect.Parameter.empty
    signature = inspect.Signature(
        [
            inspect.Parameter(
                p.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=empty if p.required else p.default
            )
            for p in wanted
        ]
    )
    construct.__name__ = construct.__qualname__ = cls.name
    construct.__doc__ = cls.__doc__
    construct.__signature__ = signature  # type: ignore[attr-defined]
    return construct


def _argument(cls: type[Pattern], p: Parameter, value: Any, specs: list[Spec], inputs: dict[str, str]) -> Any:
    if value is None and p.optional:
        return None
    try:
        return _converted(p.kind, value, specs, inputs)
    except TypeError:
        found = f"{value!r}" if isinstance(value, (int, float, str)) else type(value).__name__
        raise SpecError(
            WrongType(expected=_WANTED[p.kind.sort], found=found, context=f"for `{cls.name}({p.name}=…)`")
        ) from None
    except ValueError:
        raise SpecError(NotAChoice(argument=p.name, value=str(value), choices=p.kind.choices)) from None


_WANTED = {
    "number": "a whole number",
    "decimal": "a number",
    "tokens": "a list of tokens",
    "shape": "a whole number or a list of them",
    "pattern": "a pattern",
    "string": "a string",
    "flag": "true or false",
    "input": "the name of an input",
}


def _converted(kind: Kind, value: Any, specs: list[Spec], inputs: dict[str, str]) -> Any:
    match kind.sort:
        case "number":
            return _number(value)
        case "decimal":
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError
            return float(value)
        case "tokens":
            return value if isinstance(value, Tokens) else Tokens(tuple(_item(i) for i in value))
        case "shape":
            if isinstance(value, bool):
                value = int(value)
            return tuple(_number(v) for v in value) if isinstance(value, (tuple, list)) else (_number(value),)
        case "pattern":
            spec = as_spec(value)
            specs.append(spec)
            return spec.module.main
        case "input":
            name = value.name if isinstance(value, Input) else value
            if not isinstance(name, str):
                raise TypeError
            inputs[name] = kind.holds
            return name
        case "flag":
            if not isinstance(value, bool):
                raise TypeError
            return value
        case "string":
            if kind.function and callable(value):
                return value
            if value not in kind.choices:
                raise ValueError
            return value


def _number(value: Any) -> Expr:
    if isinstance(value, Expr):
        if value.sort == "real":
            raise SpecError(NotWhole(expression=str(value)))
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError
    return as_expr(value.__index__())


def _item(item: Any) -> Any:
    if not isinstance(item, slice):
        return _number(item)
    parts = (item.start, item.stop, item.step)
    return tuple(None if part is None else _number(part) for part in parts)
