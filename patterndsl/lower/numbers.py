"""Numbers and predicates."""

from __future__ import annotations

from patterndsl.diagnostics import (
    BadIndex,
    BadNumber,
    DivisionByZero,
    MisplacedSyntax,
    MissingArgument,
    NotCallable,
    NotInPredicates,
    NotWhole,
    NoValue,
    SymbolOperator,
    TooManyArguments,
    UnknownArgument,
    UnknownName,
    ValueTooLarge,
    WrongType,
)
from patterndsl.ir.expr import (
    FALSE,
    REAL_OPS,
    ROUND_OPS,
    TRUE,
    Expr,
    N,
    all_of,
    any_of,
    build,
    evaluate_number,
    read,
)
from patterndsl.ir.nodes import Tokens
from patterndsl.lower.scope import (
    COMPARISONS,
    FUNCTIONS,
    LOGICAL,
    Extent,
    Scope,
    describe,
    of_kind,
    too_deep,
    within_limits,
)
from patterndsl.patterns.base import in_tokens
from patterndsl.syntax import ast, limits
from patterndsl.syntax.flat import flat

_ARITHMETIC = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "//": "floordiv",
    "%": "mod",
    "**": "pow",
}
_COMPARE = {"<": "lt", "<=": "le", "==": "eq", "!=": "ne"}
_SWAPPED = {">": "lt", ">=": "le"}


def whole(scope: Scope, node: ast.Expression, argument: str = "") -> Expr | None:
    """A number that is whole for every n."""
    value = number(scope, node)
    if value is None:
        return None
    if value.sort == "real":
        scope.error(NotWhole(expression=flat(node), argument=argument, span=node.span))
        return None
    return value if within_limits(scope, extent(scope, value), node.span) else None


def extent(scope: Scope, value: Expr) -> Extent:
    """How large a number is, what stands behind its params included."""
    found: dict[Expr, Extent] = {}
    for e in value.walk():
        below = Extent(max((found[a].depth for a in e.args), default=-1), sum(found[a].size for a in e.args))
        own = Extent(below.depth + 1, below.size + 1)
        found[e] = scope.facts.extents.get(str(e.value), own) if e.op == "var" else own
    return found[value]


def number(scope: Scope, node: ast.Expression) -> Expr | None:
    """A number, whole or not."""
    value = _number(scope, node)
    if value is None or value.op == "var":
        return value
    return value if _has_value(scope, node, value) else None


def _has_value(scope: Scope, node: ast.Expression, value: Expr) -> bool:
    """Whether a constant has a value within the limits; reports it where not."""
    if value.op != "const" and any(a.op != "const" for a in value.args):
        return True
    too_large = ValueTooLarge(expression=flat(node), limit=limits.MAX_NUMBER, span=node.span)
    try:
        if abs(evaluate_number(value, {})) > limits.MAX_NUMBER:
            scope.error(too_large)
            return False
    except ZeroDivisionError:
        scope.error(DivisionByZero(operator=_division(node), span=node.span))
        return False
    except OverflowError:
        scope.error(too_large)
        return False
    except ValueError:
        scope.error(NoValue(expression=flat(node), span=node.span))
        return False
    except KeyError:  # an input at a constant position
        return True
    return True


def _division(node: ast.Expression) -> str:
    operators = node.operators if isinstance(node, ast.Chain) else ()
    return next((o for o in reversed(operators) if o in ("/", "//", "%", "**")), "/")


def _number(scope: Scope, node: ast.Expression) -> Expr | None:
    match node:
        case ast.Number(value):
            return build("const", value=value)
        case ast.Decimal(text):
            scope.error(BadNumber(text=text, span=node.span))
            return None
        case ast.Reference(parts) if len(parts) == 1:
            return _named(scope, parts[0].text, node)
        case ast.Unary("-", operand):
            inner = number(scope, operand)
            return None if inner is None else -inner
        case ast.Chain(operators) if operators[0] in _ARITHMETIC:
            return _arithmetic(scope, node)
        case ast.Call(callee, arguments) if len(callee.parts) == 1:
            return _function(scope, node, callee.text, arguments)
        case ast.Index():
            return _index(scope, node)
    if isinstance(node, ast.Chain) and scope.positions and node.operators[0] in ("&", "|", "^"):
        sign, span = node.operators[0], node.operator_spans[0]
        scope.error(SymbolOperator(operator=sign, operands="numbers", span=span))
        return None
    kind = describe(scope, node)
    if kind == "an unknown name":
        kind = "a pattern"  # a dotted name
    scope.error(WrongType(expected="a number", found=kind, span=node.span))
    return None


def _named(scope: Scope, name: str, node: ast.Expression) -> Expr | None:
    value = scope.value(name)
    if value is not None:
        return value
    kind = scope.kind(name)
    if kind is None:
        scope.error(UnknownName(name=name, candidates=scope.value_names(), span=node.span))
    else:
        scope.error(WrongType(expected="a number", found=kind, span=node.span))
    return None


def _on_positions(e: Expr) -> bool:
    return bool(e.names() & {"q", "k"}) or bool(e.inputs())


def _arithmetic(scope: Scope, node: ast.Chain) -> Expr | None:
    if len(node.operands) > limits.MAX_DEPTH:
        too_deep(scope, node.span)
        return None
    values = [number(scope, operand) for operand in node.operands]
    result = values[0]
    for sign, span, value in zip(node.operators, node.operator_spans, values[1:], strict=True):
        if result is None or value is None:
            return None
        op = _ARITHMETIC[sign]
        if op in REAL_OPS and (_on_positions(result) or _on_positions(value)):
            scope.error(NotInPredicates(operation=sign, span=span))
            return None
        if op in ("div", "floordiv", "mod") and value.number == 0:
            scope.error(DivisionByZero(operator=sign, span=span.to(node.span)))
            return None
        result = build(op, result, value)
    return result


def _function(scope: Scope, node: ast.Call, name: str, arguments: tuple[ast.Argument, ...]) -> Expr | None:
    if name not in FUNCTIONS:
        kind = scope.kind(name)
        if kind is None:
            candidates = tuple(FUNCTIONS)
            scope.error(UnknownName(name=name, candidates=candidates, span=node.callee.span))
        elif kind in ("a pattern", "an import"):
            scope.error(WrongType(expected="a number", found="a pattern", span=node.span))
        else:
            scope.error(NotCallable(name=name, kind=kind, span=node.span))
        return None
    least, most = FUNCTIONS[name]
    signature = f"{name}(x)" if most == 1 else f"{name}(x, y)"
    for argument in arguments:
        if argument.name is not None:
            scope.error(UnknownArgument(pattern=name, name=argument.name.text, span=argument.name.span))
            return None
    if len(arguments) < least:
        scope.error(MissingArgument(pattern=name, names=("x",), signature=signature, span=node.span))
        return None
    if most is not None and len(arguments) > most:
        given = len(arguments)
        scope.error(
            TooManyArguments(
                name=name, given=given, limit=most, signature=signature, span=arguments[most].span
            )
        )
        return None
    if len(arguments) > limits.MAX_DEPTH:
        too_deep(scope, node.span)
        return None
    values = [number(scope, argument.value) for argument in arguments]
    result = values[0]
    if most == 1:
        if result is None:
            return None
        if name in REAL_OPS | ROUND_OPS and _on_positions(result):
            scope.error(NotInPredicates(operation=name, span=node.span))
            return None
        return build(name, result)
    for value in values[1:]:
        if result is None or value is None:
            return None
        result = build(name, result, value)
    return result


def _index(scope: Scope, node: ast.Index) -> Expr | None:
    name = node.base.text
    kind = scope.kind(name) if len(node.base.parts) == 1 else "a pattern"
    is_input = kind == "an input" or (kind is None and not scope.names.declares_inputs)
    if is_input and not of_kind(scope, name, "token", node.base.span):
        return None
    position = node.index.text if isinstance(node.index, ast.Reference) else ""
    if not is_input or position not in scope.positions:
        span = node.base.span if not is_input else node.span
        scope.error(BadIndex(name=name, is_input=is_input, indices=scope.positions, span=span))
        return None
    return read(name, scope.local[position])


def condition(scope: Scope, node: ast.Expression) -> Expr | None:
    """A predicate over the positions in scope."""
    match node:
        case ast.Bool(value):
            return TRUE if value else FALSE
        case ast.Unary("not", operand):
            inner = condition(scope, operand)
            return None if inner is None else ~inner
        case ast.Chain(operators, operands) if operators[0] in LOGICAL:
            parts = [condition(scope, operand) for operand in operands]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            return all_of(*known) if operators[0] == "and" else any_of(*known)
        case ast.Chain(operators) if operators[0] in COMPARISONS:
            return _comparison(scope, node)
        case ast.Chain(operators, _, spans) if operators[0] in ("&", "|", "^"):
            scope.error(SymbolOperator(operator=operators[0], operands="predicates", span=spans[0]))
            return None
        case ast.Unary("~"):
            scope.error(SymbolOperator(operator="~", operands="predicates", span=node.span))
            return None
    kind = describe(scope, node)
    if kind == "an unknown name":
        _named(scope, node.text if isinstance(node, ast.Reference) else flat(node)[:60], node)
    else:
        scope.error(WrongType(expected="a predicate", found=kind, span=node.span))
    return None


def _comparison(scope: Scope, node: ast.Chain) -> Expr | None:
    values: list[Expr | Tokens | None] = []
    for i, operand in enumerate(node.operands):
        is_list = i > 0 and node.operators[i - 1] in ("in", "not in")
        if is_list and not isinstance(operand, ast.List):
            advice = "write the values in square brackets: `k in [0, 4:8, -1]`"
            scope.error(
                MisplacedSyntax(what="the right side of `in` is a list", advice=advice, span=operand.span)
            )
            values.append(None)
        else:
            values.append(tokens(scope, operand) if is_list else whole(scope, operand))
    tests = []
    for sign, left, right in zip(node.operators, values, values[1:], strict=False):
        if left is None or right is None:
            return None
        if isinstance(left, Tokens):
            scope.error(WrongType(expected="a number", found="a list", span=node.span))
            return None
        if isinstance(right, Tokens):
            member = in_tokens(left, right, N)
            tests.append(~member if sign == "not in" else member)
        elif sign in _SWAPPED:
            tests.append(build(_SWAPPED[sign], right, left))
        else:
            tests.append(build(_COMPARE[sign], left, right))
    return all_of(*tests)


def tokens(scope: Scope, node: ast.Expression, argument: str = "") -> Tokens | None:
    """A list of token positions."""
    if not isinstance(node, ast.List):
        scope.error(WrongType(expected="a list", found=describe(scope, node), span=node.span))
        return None
    items: list[Expr | tuple[Expr | None, Expr | None, Expr | None]] = []
    complete = True
    for item in node.items:
        if not isinstance(item, ast.Slice):
            value = whole(scope, item, argument)
            complete &= value is not None
            if value is not None:
                items.append(value)
            continue
        parts = (item.start, item.stop, item.step)
        start, stop, step = (None if part is None else whole(scope, part, argument) for part in parts)
        complete &= all(
            part is None or value is not None for part, value in zip(parts, (start, stop, step), strict=True)
        )
        items.append((start, stop, step))
    return Tokens(tuple(items)) if complete else None
