"""Lark's trees to the nodes of ``ast``.

The trees are walked bottom-up without recursion, so that depth is checked by a limit and not by Python's
stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lark import Token, Tree

from patterndsl.diagnostics import syntax as errors
from patterndsl.diagnostics.base import Diagnostics
from patterndsl.syntax import ast, limits
from patterndsl.syntax.source import Source, Span

CHAINS = (
    "disjunction",
    "conjunction",
    "comparison",
    "union",
    "difference",
    "intersection",
    "sum",
    "product",
    "power",
)
NESTING = {*CHAINS, "not", "minus", "call", "index", "list", "where", "block"}
Child = Any  # a node of ast, or a token that the grammar keeps


class TreeBuilder:
    """Builds nodes; numbers, lists and nesting beyond their limits become errors."""

    def __init__(self, source: Source, found: Diagnostics) -> None:
        self.source = source
        self.found = found
        make: dict[str, Callable[[list[Child], Span], Any]] = {
            "name": lambda c, span: ast.Name(str(c[0]), span=span),
            "number": self.number,
            "decimal": lambda c, span: ast.Decimal(str(c[0]), span=span),
            "string": lambda c, span: ast.String(str(c[0])[1:-1], span=span),
            "boolean": lambda c, span: ast.Bool(str(c[0]) == "true", span=span),
            "reference": lambda c, span: ast.Reference(tuple(c), span=span),
            "call": lambda c, span: ast.Call(c[0], self.limited(c[1:], span), span=span),
            "positional": lambda c, span: ast.Argument(None, c[0], span=span),
            "keyword": lambda c, span: ast.Argument(c[0], c[1], span=span),
            "index": lambda c, span: ast.Index(c[0], c[1], span=span),
            "list": lambda c, span: ast.List(self.limited(c, span), span=span),
            "slice": self.slice,
            "where": lambda c, span: ast.Where(c[0], c[1], c[2], span=span),
            "block": lambda c, span: ast.Block(c[0].value, self.limited(c[1:], span), span=span),
            "case": lambda c, span: ast.Case(c[0], c[1], span=span),
            "every": lambda c, span: ast.Selector("every", c[0], span=span),
            "one": lambda c, span: ast.Selector("one", c[0], span=span),
            "range": self.range,
            "rest": lambda c, span: ast.Selector("rest", span=span),
            "not": self.unary,
            "minus": self.unary,
            "not_in": lambda c, span: Token("NOT_IN", "not in", span.start, end_pos=span.end),
            "import": lambda c, span: ast.Import(c[0], c[1] if len(c) > 1 else None, span=span),
            "param": lambda c, span: ast.Param(c[0], c[1], span=span),
            "input": lambda c, span: ast.Input(c[0], c[1], span=span),
            "pattern": self.pattern,
            "parameters": lambda c, span: self.limited(c, span),
            "parameter": lambda c, span: ast.Parameter(c[0], c[1] if len(c) > 1 else None, span=span),
            "expression": lambda c, span: c[0],
        }
        self.make = make | dict.fromkeys(CHAINS, self.chain)

    def expression(self, tree: object) -> ast.Expression:
        return cast("ast.Expression", self.build(tree))

    def statement(self, tree: object) -> ast.Statement:
        return cast("ast.Statement", self.build(tree))

    def build(self, tree: object) -> Any:
        assert isinstance(tree, Tree)
        built: dict[int, Any] = {}
        depth: dict[int, int] = {}
        for part in tree.iter_subtrees():
            span = Span(self.source, part.meta.start_pos, part.meta.end_pos)
            children = [built[id(c)] if isinstance(c, Tree) else c for c in part.children]
            built[id(part)] = self.make[str(part.data)](children, span)
            below = max((depth[id(c)] for c in part.children if isinstance(c, Tree)), default=0)
            depth[id(part)] = below + (part.data in NESTING)
            if depth[id(part)] > limits.MAX_DEPTH:
                self.found.add(errors.TooDeep(limit=limits.MAX_DEPTH, span=span))
                return ast.Bool(False)  # never seen: an error was reported
        return built[id(tree)]

    def limited(self, members: list[Child], span: Span) -> tuple[Any, ...]:
        if len(members) > limits.MAX_LENGTH:
            self.found.add(errors.TooLong(length=len(members), limit=limits.MAX_LENGTH, span=span))
        return tuple(members)

    def number(self, children: list[Child], span: Span) -> ast.Number:
        digits = str(children[0]).lstrip("0") or "0"
        if len(digits) > len(str(limits.MAX_NUMBER)) or int(digits) > limits.MAX_NUMBER:
            self.found.add(errors.NumberTooLarge(digits=len(digits), limit=limits.MAX_NUMBER, span=span))
            return ast.Number(0, span=span)
        return ast.Number(int(digits), span=span)

    def chain(self, children: list[Child], span: Span) -> ast.Chain:
        operands, signs = self.limited(children[::2], span), children[1::2]
        spans = tuple(Span(self.source, sign.start_pos, sign.end_pos) for sign in signs)
        return ast.Chain(tuple(str(sign) for sign in signs), operands, spans, span=span)

    def unary(self, children: list[Child], span: Span) -> ast.Unary:
        return ast.Unary(str(children[0]), children[1], span=span)

    def slice(self, children: list[Child], span: Span) -> ast.Slice:
        parts: list[ast.Expression | None] = [None]
        for child in children:
            if isinstance(child, Token):
                parts.append(None)
            else:
                parts[-1] = child
        start, stop, step = (*parts, None)[:3]
        return ast.Slice(start, stop, step, span=span)

    def range(self, children: list[Child], span: Span) -> ast.Selector:
        colon = next(i for i, child in enumerate(children) if isinstance(child, Token))
        before, after = children[:colon], children[colon + 1 :]
        return ast.Selector("range", *(side[0] if side else None for side in (before, after)), span=span)

    def pattern(self, children: list[Child], span: Span) -> ast.Pattern:
        parameters = children[1] if isinstance(children[1], tuple) else None
        return ast.Pattern(children[0], parameters, children[-1], span=span)
