"""Patterns: operators, predicates, cases."""

from __future__ import annotations

from patterndsl.diagnostics import (
    MIX_PLACES,
    BothSummaries,
    DuplicateName,
    MisplacedSyntax,
    SummariesUnder,
    SymbolOperator,
    WordOperator,
    WrongType,
)
from patterndsl.ir.nodes import (
    Complement,
    Difference,
    Intersection,
    Mix,
    Node,
    Sum,
    SymmetricDifference,
    Union,
    Where,
)
from patterndsl.lower.numbers import condition
from patterndsl.lower.scope import (
    COMPARISONS,
    LOGICAL,
    Scope,
    check_new_name,
    describe,
    too_deep,
)
from patterndsl.syntax import ast, limits
from patterndsl.syntax.source import Span

_FLAT: dict[str, type[Union] | type[SymmetricDifference] | type[Intersection]] = {
    "|": Union,
    "^": SymmetricDifference,
    "&": Intersection,
}


def pattern(scope: Scope, node: ast.Expression) -> Node | None:
    """The IR of a pattern expression, or None where errors were reported."""
    from patterndsl.lower.calls import call
    from patterndsl.lower.cases import cases

    match node:
        case ast.Reference():
            return call(scope, node, (), node.span)
        case ast.Call(callee, arguments):
            return call(scope, callee, arguments, node.span)
        case ast.Where():
            return _where(scope, node)
        case ast.Block():
            return cases(scope, node)
        case ast.Unary("~", operand):
            inner = pattern(scope, operand)
            if inner is None or refuse_summaries(scope, inner, "~", operand.span):
                return None
            return made(scope, Complement(inner), node.span, (inner,))
        case ast.Chain(operators) if operators[0] in _FLAT:
            return _joined(scope, node)
        case ast.Chain(operators) if operators[0] in ("+", "-"):
            return _summed(scope, node)
    _refuse(scope, node)
    return None


def _refuse(scope: Scope, node: ast.Expression) -> None:
    """Report an expression that is no pattern, in the way that helps most."""
    kind = describe(scope, node)
    if isinstance(node, ast.Unary):
        below = describe(scope, node.operand)
        if node.operator == "not" and below in ("a pattern", "an unknown name"):
            scope.error(WordOperator(operator="not", span=_sign(node)))
            pattern(scope, node.operand)
            return
        if below == "a pattern":
            scope.error(SymbolOperator(operator=node.operator, operands="a pattern alone", span=_sign(node)))
            return
    if isinstance(node, ast.Chain):
        kinds = {describe(scope, operand) for operand in node.operands}
        if node.operators[0] in LOGICAL and kinds <= {"a pattern", "an unknown name"}:
            scope.error(WordOperator(operator=node.operators[0], span=node.operator_spans[0]))
            for operand in node.operands:
                pattern(scope, operand)
            return
        if "a pattern" in kinds and (node.operators[0] not in LOGICAL):
            what = "patterns" if kinds == {"a pattern"} else "a pattern"
            sign = node.operators[0]
            if sign not in COMPARISONS or what == "patterns":
                scope.error(SymbolOperator(operator=sign, operands=what, span=node.operator_spans[0]))
                return
    scope.error(WrongType(expected="a pattern", found=kind, span=node.span))


def _sign(node: ast.Unary) -> Span:
    return Span(node.span.source, node.span.start, node.span.start + len(node.operator))


def _joined(scope: Scope, node: ast.Chain) -> Node | None:
    sign = node.operators[0]
    kind = _FLAT[sign]
    found = [pattern(scope, operand) for operand in node.operands]
    members: list[Node] = []
    complete = True
    holder: Span | None = None
    for operand, member in zip(node.operands, found, strict=True):
        if member is None:
            complete = False
            continue
        if sign == "^" and refuse_summaries(scope, member, "^", operand.span):
            complete = False
        if sign == "&" and scope.facts.holds_summaries[member]:
            if holder is not None:
                scope.error(BothSummaries(first=holder, span=operand.span))
                complete = False
            holder = operand.span
        members.extend(member.members if isinstance(member, kind) else (member,))
    if not complete:
        return None
    return made(scope, kind(tuple(members)), node.span, [m for m in found if m is not None])


def _summed(scope: Scope, node: ast.Chain) -> Node | None:
    found = [pattern(scope, operand) for operand in node.operands]
    result = found[0]
    members = [result]
    for i, (sign, right) in enumerate(zip(node.operators, found[1:], strict=True)):
        if result is None or right is None:
            return None
        if sign == "-":
            if refuse_summaries(scope, right, "-", node.operands[i + 1].span):
                return None
            result = made(scope, Difference(result, right), node.span, (result, right))
        else:
            inside = (*(result.members if isinstance(result, Sum) else (result,)), right)
            result = made(scope, Sum(inside), node.span, inside)
        members.append(right)
    return result


def _where(scope: Scope, node: ast.Where) -> Node | None:
    given = [check_new_name(scope.found, name) for name in (node.query, node.key)]
    fine = all(given)
    if node.query.text == node.key.text:
        scope.error(DuplicateName(name=node.key.text, first=node.query.span, span=node.key.span))
        fine = False
    keep = condition(scope.inside_where(node.query.text, node.key.text), node.condition)
    return made(scope, Where(keep), node.span) if keep is not None and fine else None


def refuse_summaries(scope: Scope, node: Node, operator: str, span: Span) -> bool:
    """Report a pattern with summaries where the operator has no meaning for them."""
    if not scope.facts.holds_summaries[node]:
        return False
    scope.error(SummariesUnder(operator=operator, span=span))
    return True


def made(
    scope: Scope,
    node: Node,
    span: Span,
    members: tuple[Node, ...] | list[Node] = (),
    holds_summaries: bool = False,
) -> Node | None:
    """Note what is known of a new node: its span, whether it holds summaries or a `mix`, how deep it is."""
    facts = scope.facts
    facts.spans.setdefault(node, span)
    facts.holds_summaries[node] = holds_summaries or any(facts.holds_summaries[m] for m in members)
    mixed = [m for m in members if facts.mixes[m]]
    allowed = isinstance(node, Mix) or (isinstance(node, Intersection) and len(mixed) == 1)
    if mixed and not allowed and not hasattr(node, "pick"):
        scope.error(MisplacedSyntax(what="`mix` inside another operation", advice=MIX_PLACES, span=span))
        return None
    facts.mixes[node] = isinstance(node, Mix) or bool(mixed)
    facts.depth[node] = 1 + max((facts.depth[m] for m in members), default=0)
    if facts.depth[node] > limits.MAX_DEPTH:
        too_deep(scope, span)
        return None
    return node
