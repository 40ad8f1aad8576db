"""Calls: built-in patterns, pattern definitions, members of imports."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from patterndsl.diagnostics import (
    DuplicateArgument,
    MissingArgument,
    NoMain,
    NotAChoice,
    NotCallable,
    NotPositive,
    PositionalAfterKeyword,
    SpecError,
    TooManyArguments,
    UnknownArgument,
    UnknownMember,
    UnknownName,
    UnknownPattern,
    WrongType,
)
from patterndsl.ir.expr import Expr, as_expr
from patterndsl.ir.nodes import Call, Mix, Node, Pattern
from patterndsl.ir.resolve import check_arguments
from patterndsl.lower.files import library
from patterndsl.lower.numbers import extent, tokens, whole
from patterndsl.lower.patterns import made, pattern, refuse_summaries
from patterndsl.lower.scope import Extent, Scope, Signature, describe, of_kind, within_limits
from patterndsl.patterns import builtin
from patterndsl.patterns.base import REQUIRED, Parameter, parameters
from patterndsl.syntax import ast
from patterndsl.syntax.source import Span

Arguments = tuple[ast.Argument, ...]
WRONG = object()


def call(scope: Scope, callee: ast.Reference, arguments: Arguments, span: Span) -> Node | None:
    """A pattern by its name, with or without arguments."""
    name = callee.parts[0].text
    if len(callee.parts) > 1:
        return _member(scope, callee, arguments, span)
    if name in scope.local or scope.value(name) is not None or scope.kind(name) in ("an input", "a function"):
        kind = scope.kind(name) or "a number"
        if span == callee.span or kind == "a function":
            found = "a number" if kind in ("a function", "a position") else kind
            scope.error(WrongType(expected="a pattern", found=found, span=span))
        else:
            scope.error(NotCallable(name=name, kind=kind, span=span))
        return None
    if name in scope.names.patterns:
        return _defined(scope, scope.names.patterns[name], name, arguments, span)
    if name in scope.names.imports:
        return _main_of(scope, callee, arguments, span)
    if name == "mix":
        return _mix(scope, arguments, span)
    cls = builtin(name)
    if cls is None:
        known = scope.pattern_names()
        scope.error(UnknownPattern(name=name, candidates=known, library=library(), span=callee.span))
        return None
    return _built_in(scope, cls, callee, arguments, span)


def _member(scope: Scope, callee: ast.Reference, arguments: Arguments, span: Span) -> Node | None:
    """``lf.longformer(globals=2)``."""
    first = callee.parts[0]
    if first.text not in scope.names.imports:
        candidates = tuple(scope.names.imports)
        scope.error(UnknownName(name=first.text, candidates=candidates, what="import", span=first.span))
        return None
    module = scope.names.imports[first.text]
    if module is None:
        return None
    name = callee.parts[1]
    if len(callee.parts) > 2 or name.text not in module.patterns:
        if not module.wrong:
            member = ".".join(part.text for part in callee.parts[1:])
            scope.error(
                UnknownMember(
                    module=first.text, name=member, candidates=tuple(module.patterns), span=name.span
                )
            )
        return None
    return _defined(scope, module.patterns[name.text], callee.text, arguments, span)


def _main_of(scope: Scope, callee: ast.Reference, arguments: Arguments, span: Span) -> Node | None:
    """The name of an import alone."""
    name = callee.parts[0].text
    module = scope.names.imports[name]
    if module is None:
        return None
    if "main" not in module.patterns:
        if not module.wrong:
            members = tuple(module.patterns)
            scope.error(NoMain(file=module.label, candidates=members, imported_as=name, span=callee.span))
        return None
    return _defined(scope, module.patterns["main"], name, arguments, span)


def _defined(scope: Scope, signature: Signature, name: str, arguments: Arguments, span: Span) -> Node | None:
    """A call of a pattern that a file defines: its arguments are numbers."""
    wanted = [(p.name.text, p.default is None) for p in signature.arguments]
    shown = ", ".join(n if required else f"{n}=…" for n, required in wanted)
    given = bind(scope, name, wanted, arguments, span, f"{name}({shown})")
    if given is None:
        return None
    values: list[Expr] = []
    for argument, _ in wanted:
        value = (
            whole(scope, given[argument], argument) if argument in given else signature.defaults.get(argument)
        )
        if value is None:
            return None
        values.append(value)
    if signature.function is None:
        return None  # its errors are reported where it is defined
    node = Call(signature.name, tuple(values))
    lowered = made(scope, node, span, holds_summaries=signature.holds_summaries)
    scope.facts.mixes[node] = signature.mixes
    scope.facts.depth[node] = signature.depth
    scope.met.expanded += signature.size
    arguments_extent = functools.reduce(Extent.__or__, (extent(scope, v) for v in values), Extent())
    return lowered if within_limits(scope, signature.numbers.over(arguments_extent), span) else None


def _mix(scope: Scope, arguments: Arguments, span: Span) -> Node | None:
    for argument in arguments:
        if argument.name is not None:
            scope.error(UnknownArgument(pattern="mix", name=argument.name.text, span=argument.name.span))
            return None
    if len(arguments) < 2:
        missing = ("a", "b")[len(arguments) :]
        scope.error(MissingArgument(pattern="mix", names=missing, signature="mix(a, b, …)", span=span))
        return None
    branches = [pattern(scope, argument.value) for argument in arguments]
    known = [branch for branch in branches if branch is not None]
    return made(scope, Mix(tuple(known)), span, known) if len(known) == len(branches) else None


def _built_in(
    scope: Scope, cls: type[Pattern], callee: ast.Reference, arguments: Arguments, span: Span
) -> Node | None:
    wanted = parameters(cls)
    names = [(p.name, p.required) for p in wanted]
    given = bind(scope, cls.name, names, arguments, span, signature_text(cls))
    if given is None:
        return None
    values: list[Any] = []
    for p in wanted:
        if p.name not in given:
            values.append(p.default)
            assert p.default is not REQUIRED, "bind has reported what is missing"
        else:
            values.append(_argument(scope, cls, p, given[p.name]))
    if any(value is WRONG for value in values):
        return None
    node = cls(*values)
    try:
        check_arguments(node, None)
    except SpecError as error:
        for diagnostic in error.diagnostics:
            at = given.get(diagnostic.argument) if isinstance(diagnostic, NotPositive) else None
            scope.error(diagnostic.at(span if at is None else at.span))
        return None
    holds = cls.summaries is not Pattern.summaries
    operands = [v for p, v in zip(wanted, values, strict=True) if p.name in given and isinstance(v, Node)]
    return made(scope, node, span, operands, holds)


def signature_text(cls: type[Pattern]) -> str:
    """How a built-in is called: ``random(blocks, block=64, seed=0)``."""
    from patterndsl.ir.text import argument_text

    parts = []
    for p in parameters(cls):
        default = "…" if p.optional else argument_text(p.default, p.kind.sort)
        parts.append(p.name if p.required else f"{p.name}={default}")
    return f"{cls.name}({', '.join(parts)})" if parts else cls.name


def bind(
    scope: Scope,
    name: str,
    wanted: Sequence[tuple[str, bool]],
    arguments: Arguments,
    span: Span,
    signature: str,
) -> dict[str, ast.Expression] | None:
    """Which argument is which: ``wanted`` lists names and whether they are required. None after errors."""
    names = [n for n, _ in wanted]
    found: dict[str, ast.Argument] = {}
    positional = 0
    fine = True
    by_name = False
    for argument in arguments:
        if argument.name is None:
            if by_name:
                scope.error(PositionalAfterKeyword(span=argument.span))
                fine = False
                continue
            positional += 1
            if positional > len(names):
                given = sum(a.name is None for a in arguments)
                scope.error(
                    TooManyArguments(
                        name=name, given=given, limit=len(names), signature=signature, span=argument.span
                    )
                )
                return None
            key = names[positional - 1]
        else:
            by_name = True
            key = argument.name.text
            if key not in names:
                scope.error(
                    UnknownArgument(pattern=name, name=key, candidates=tuple(names), span=argument.name.span)
                )
                fine = False
                continue
        if key in found:
            scope.error(DuplicateArgument(name=key, first=found[key].span, span=argument.span))
            fine = False
        found.setdefault(key, argument)
    missing = tuple(n for n, required in wanted if required and n not in found)
    if missing and fine:
        scope.error(MissingArgument(pattern=name, names=missing, signature=signature, span=span))
        fine = False
    return {key: argument.value for key, argument in found.items()} if fine else None


def _argument(scope: Scope, cls: type[Pattern], p: Parameter, node: ast.Expression) -> Any:
    """An argument of a built-in as its field holds it, or WRONG."""
    if p.optional and isinstance(node, ast.Reference) and node.text == "auto":
        return None
    value: Any = None
    match p.kind.sort:
        case "number":
            value = whole(scope, node, p.name)
        case "decimal":
            value = _decimal(scope, node)
        case "tokens":
            value = tokens(scope, node, p.name)
        case "shape":
            value = _shape(scope, p, node)
        case "pattern":
            value = pattern(scope, node)
            if value is not None and refuse_summaries(scope, value, cls.name, node.span):
                value = None
        case "string":
            value = _choice(scope, p, node)
        case "flag":
            if isinstance(node, ast.Bool):
                return node.value
            scope.error(WrongType(expected="true or false", found=describe(scope, node), span=node.span))
        case "input":
            value = _input(scope, node, p.kind.holds)
    return WRONG if value is None else value


def _shape(scope: Scope, p: Parameter, node: ast.Expression) -> tuple[Expr, ...] | None:
    """One number for all axes, or a list of one for each; true and false where 0 and 1 are allowed."""
    items = node.items if isinstance(node, ast.List) else (node,)
    values: list[Expr | None] = []
    for item in items:
        if isinstance(item, ast.Bool) and p.kind.least == 0:
            values.append(as_expr(int(item.value)))
        elif isinstance(item, ast.Slice):
            scope.error(WrongType(expected="a number", found="a range", span=item.span))
            values.append(None)
        else:
            values.append(whole(scope, item, p.name))
    if not values:
        scope.error(WrongType(expected="a list of numbers", found="an empty list", span=node.span))
        return None
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _decimal(scope: Scope, node: ast.Expression) -> float | None:
    """``0.95`` or ``1``."""
    if isinstance(node, ast.Decimal | ast.Number):
        return float(node.text if isinstance(node, ast.Decimal) else node.value)
    found = describe(scope, node)
    scope.error(WrongType(expected="a decimal number such as 0.9", found=found, span=node.span))
    return None


def _choice(scope: Scope, p: Parameter, node: ast.Expression) -> str | None:
    if not isinstance(node, ast.String):
        found = describe(scope, node)
        scope.error(WrongType(expected="a string", found=found, choices=p.kind.choices, span=node.span))
        return None
    if node.value not in p.kind.choices:
        scope.error(NotAChoice(argument=p.name, value=node.value, choices=p.kind.choices, span=node.span))
        return None
    return node.value


def _input(scope: Scope, node: ast.Expression, holds: str) -> str | None:
    if not isinstance(node, ast.Reference) or len(node.parts) > 1:
        scope.error(WrongType(expected="an input", found=describe(scope, node), span=node.span))
        return None
    kind = scope.kind(node.text)
    if kind is None and scope.names.declares_inputs:
        candidates = tuple(scope.names.inputs)
        scope.error(UnknownName(name=node.text, candidates=candidates, what="input", span=node.span))
        return None
    if kind not in (None, "an input"):
        scope.error(WrongType(expected="an input", found=kind, span=node.span))
        return None
    return node.text if of_kind(scope, node.text, holds, node.span) else None


def defaults(scope: Scope, signature: Signature) -> None:
    """Lower the defaults of a pattern's arguments: numbers of the file, which know no other arguments."""
    outside = dataclasses.replace(scope, local={})
    for p in signature.arguments:
        if p.default is not None:
            signature.defaults[p.name.text] = whole(outside, p.default, p.name.text)
