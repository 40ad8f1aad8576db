"""`heads { … }` and `layers { … }`."""

from __future__ import annotations

from itertools import pairwise

from patterndsl.diagnostics import EmptySelector, MisplacedSyntax, RangesGap, RangesOverlap
from patterndsl.ir.nodes import Heads, Layers, Node, Range
from patterndsl.lower.patterns import made, pattern
from patterndsl.lower.scope import Scope
from patterndsl.syntax import ast
from patterndsl.syntax.flat import flat
from patterndsl.syntax.source import Span


def cases(scope: Scope, node: ast.Block) -> Node | None:
    """The patterns of a block, once its cases are known to cover everything, and each thing once."""
    ranges: list[tuple[Range, Span]] = []
    patterns: list[Node] = []
    rest: tuple[Node | None, Span] | None = None
    complete = True
    for case in node.cases:
        body = pattern(scope, case.body)
        if case.selector.kind == "rest":
            if rest is not None:
                scope.error(RangesOverlap(kind=node.kind, first=rest[1], span=case.selector.span))
                complete = False
            else:
                rest = (body, case.selector.span)
            complete &= body is not None
            continue
        selected = _range(scope, case.selector)
        if selected is None or body is None:
            complete = False
        else:
            ranges.append((selected, case.selector.span))
            patterns.append(body)
    if not complete or _overlap(scope, node, ranges) or (rest is None and _gap(scope, node, ranges)):
        return None
    otherwise = rest[0] if rest is not None else None
    kind = Heads if node.kind == "heads" else Layers
    block = kind(tuple(r for r, _ in ranges), tuple(patterns), otherwise)
    return made(scope, block, node.span, [*patterns, *([otherwise] if otherwise is not None else [])])


def _range(scope: Scope, selector: ast.Selector) -> Range | None:
    for bound in (selector.start, selector.stop):
        if isinstance(bound, ast.Reference):
            what = "a name selects heads or layers"
            advice = "select them by plain numbers, and all others by `_`"
            scope.error(MisplacedSyntax(what=what, advice=advice, span=bound.span))
            return None
    start = selector.start.value if isinstance(selector.start, ast.Number) else None
    stop = selector.stop.value if isinstance(selector.stop, ast.Number) else None
    if selector.kind == "every":
        assert start is not None, "the grammar gives `every` a number"
        found = Range(start - 1, None, start)
    elif selector.kind == "one":
        assert start is not None, "the grammar gives a number"
        found = Range(start, start + 1)
    else:
        found = Range(start or 0, stop)
    if found.step == 0 or (found.stop is not None and found.stop <= found.start):
        scope.error(EmptySelector(selector=flat(selector), span=selector.span))
        return None
    return found


def _overlap(scope: Scope, node: ast.Block, ranges: list[tuple[Range, Span]]) -> bool:
    """Whether plain ranges overlap; `every` may meet them, the case written first being taken."""
    plain = sorted(((r, span) for r, span in ranges if r.step == 1), key=lambda item: item[0].start)
    wrong = False
    for (before, first), (after, span) in pairwise(plain):
        if before.stop is None or after.start < before.stop:
            earlier, later = sorted((first, span), key=lambda s: s.start)
            scope.error(RangesOverlap(kind=node.kind, index=after.start, first=earlier, span=later))
            wrong = True
    return wrong


def _gap(scope: Scope, node: ast.Block, ranges: list[tuple[Range, Span]]) -> bool:
    """Whether something belongs to no case. Without an open end, the cases also say how many there are."""
    plain = sorted((r for r, _ in ranges if r.step == 1), key=lambda r: r.start)
    every = [r for r, _ in ranges if r.step > 1]
    at = 0
    for here in plain:
        while any(at in r for r in every) and at < here.start:
            at += 1
        if at < here.start:
            break
        if here.stop is None:
            return False
        at = max(at, here.stop)
    while any(at in r for r in every):
        at += 1
    following = next((r.start for r in plain if r.start > at), None)
    if following is None and not every and at > 0:
        return False
    stop = following if not every else at + 1
    scope.error(RangesGap(kind=node.kind, start=at, stop=stop, span=node.span))
    return True
