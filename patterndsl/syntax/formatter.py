"""Syntax trees to canonical text.

An expression is printed on one line where it fits, and one operand, argument or case to a line where it
does not. Parsing the result gives the same tree, and formatting it again changes nothing. Comments stay
with what follows them (on their own line) or precedes them (at the end of a line).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from patterndsl.syntax import ast
from patterndsl.syntax.flat import flat, level_of, operand_level

WIDTH = 88
INDENT = 4


def format_file(file: ast.File) -> str:
    """The canonical text of a file, with a final newline."""
    return Printer(file).run()


def items_of(node: ast.Node) -> tuple[ast.Node, ...]:
    """What goes on lines of its own when the node is broken."""
    match node:
        case ast.Chain(operands=items) | ast.List(items) | ast.Call(arguments=items) | ast.Block(cases=items):
            return items
        case ast.Where(condition=condition):
            return (condition,)
        case ast.Index(index=index):
            return (index,)
        case ast.Pattern(parameters=parameters):
            return parameters or ()
    return ()


@dataclass(frozen=True)
class Place:
    """A place for comments: before item ``position`` of a node, or at its closing bracket after the last."""

    offset: int
    depth: int
    owner: int
    position: int


def places(node: ast.Node, depth: int = 0, opened: bool = False) -> Iterator[Place]:
    """Every place for comments in a tree. ``opened``: a chain's first operand gets a line of its own."""
    if isinstance(node, ast.Slice | ast.Parameter | ast.Selector):
        return  # always on one line
    items = items_of(node)
    for i, item in enumerate(items):
        start = item.span.start
        if isinstance(node, ast.Chain) and i == 0:
            start = node.span.start  # brackets around the first operand belong to the chain
        elif isinstance(node, ast.Chain) and isinstance(item, ast.Chain):
            start = node.operator_spans[i - 1].start
        if i or opened or not isinstance(node, ast.Chain):
            yield Place(start, depth, id(node), i)
    if items and not isinstance(node, ast.Chain | ast.Pattern):
        yield Place(node.span.end - 1, depth, id(node), len(items))
    for child in ast.children(node):
        opens = isinstance(node, ast.Pattern | ast.Param | ast.Chain | ast.Unary | ast.Case)
        opens |= isinstance(node, ast.Argument) and node.name is not None
        yield from places(child, depth + 1, opens)


class Printer:
    """Prints a file line by line."""

    def __init__(self, file: ast.File) -> None:
        self.file = file
        self.lines: list[str] = []
        self.current = ""
        self.commented = False  # whether the last line ends in a comment
        self.attached: dict[tuple[int, int], list[ast.Comment]] = {}
        self.broken: set[int] = set()

    def run(self) -> str:
        bodies: tuple[ast.Node, ...] = self.file.statements
        if self.file.expression is not None:
            bodies = (self.file.expression,)
        comments = list(self.file.comments)
        previous: ast.Node | None = None
        for number, body in enumerate(bodies):
            while comments and comments[0].span.start < body.span.start:
                previous = self.top(comments.pop(0), previous)
            inner: list[ast.Comment] = []
            while comments and comments[0].span.start < body.span.end:
                inner.append(comments.pop(0))
            trailing = self.attach(body, inner)
            following = bodies[number + 1] if number + 1 < len(bodies) else None
            if comments and not comments[0].own_line and self.same_line(body, comments[0], following):
                trailing.append(comments.pop(0))
            self.separate(previous, body)
            self.statement(body)
            self.newline()
            previous = body
            for comment in trailing:
                self.comment(comment, 0)
                previous = max(previous, comment, key=lambda node: node.span.end)
        for comment in comments:
            previous = self.top(comment, previous)
        return "".join(line.rstrip() + "\n" for line in self.lines)

    def top(self, comment: ast.Comment, previous: ast.Node | None) -> ast.Node:
        """A comment between statements."""
        self.separate(previous, comment)
        self.lines.append(comment.text)
        self.commented = True
        return comment

    def separate(self, previous: ast.Node | None, node: ast.Node) -> None:
        """An empty line where the source has one or more."""
        if previous is None:
            return
        between = node.span.source.text[previous.span.end : node.span.start]
        if between.count("\n") > 1:
            self.lines.append("")
            self.commented = False

    @staticmethod
    def same_line(node: ast.Node, comment: ast.Comment, following: ast.Node | None) -> bool:
        """Whether a comment stands behind a node on its line, with no other node between."""
        if following is not None and following.span.start < comment.span.start:
            return False
        return "\n" not in node.span.source.text[node.span.end : comment.span.start]

    def attach(self, body: ast.Node, comments: list[ast.Comment]) -> list[ast.Comment]:
        """Give each comment inside a statement to the next place for one; returns those without."""
        if not comments:
            return []
        spots = sorted(places(body), key=lambda place: (place.offset, place.depth))
        rest = []
        owners: set[int] = set()
        for comment in comments:
            spot = next((place for place in spots if place.offset >= comment.span.end), None)
            if spot is None:
                rest.append(comment)
            else:
                self.attached.setdefault((spot.owner, spot.position), []).append(comment)
                owners.add(spot.owner)
        self.mark_broken(body, owners)
        return rest

    def mark_broken(self, node: ast.Node, owners: set[int]) -> bool:
        inside = [self.mark_broken(child, owners) for child in ast.children(node)]
        if id(node) in owners or any(inside):
            self.broken.add(id(node))
            return True
        return False

    def has_comments(self, node: ast.Node) -> bool:
        return any((id(node), i) in self.attached for i in range(len(items_of(node)) + 1))

    def newline(self) -> None:
        self.lines.append(self.current)
        self.current = ""
        self.commented = False

    def line(self, indent: int) -> None:
        """Begin a line."""
        self.newline()
        self.current = " " * indent

    def comment(self, comment: ast.Comment, indent: int) -> None:
        """A comment after the last line if it stood at the end of one, or on a line of its own."""
        if not comment.own_line and not self.commented and self.lines:
            self.lines[-1] += f"  {comment.text}"
        else:
            self.lines.append(" " * indent + comment.text)
        self.commented = True

    def begin(self, owner: ast.Node, position: int, indent: int) -> None:
        """Begin the line of an item, its comments first."""
        self.newline()
        for comment in self.attached.get((id(owner), position), ()):
            self.comment(comment, indent)
        self.current = " " * indent

    def statement(self, node: ast.Node) -> None:
        text = flat(node)
        if id(node) not in self.broken and len(text) <= WIDTH:
            self.current = text
            return
        match node:
            case ast.Param(name, value):
                self.current = f"param {name.text} ="
                self.body(value)
            case ast.Pattern(name, parameters, body):
                self.current = f"pattern {name.text}"
                if parameters is not None:
                    signature = f"({', '.join(map(flat, parameters))})"
                    if self.has_comments(node) or len(self.current + signature) + 2 > WIDTH:
                        self.bracketed(node, "(", parameters, ")", 0)
                    else:
                        self.current += signature
                self.current += " ="
                self.body(body)
            case ast.Import() | ast.Input():
                self.current = text
            case _:
                self.expression(node, 0, 0)

    def body(self, node: ast.Expression) -> None:
        """What follows the ``=`` of a statement: on the same line if it fits, else whole on the next, else
        broken, behind the ``=`` if it brings its own bracket."""
        length = len(flat(node))
        whole = id(node) not in self.broken
        braced = isinstance(node, ast.Block | ast.List)
        if whole and not braced and len(self.current) + 1 + length > WIDTH >= INDENT + length:
            self.line(INDENT)
            self.current += flat(node)
        elif (whole and len(self.current) + 1 + length <= WIDTH) or not isinstance(
            node, ast.Chain | ast.Unary
        ):
            self.current += " "
            self.expression(node, 0, 0)
        elif isinstance(node, ast.Chain):
            self.begin(node, 0, INDENT)
            self.chain(node, INDENT)
        else:
            self.line(INDENT)
            self.expression(node, 0, INDENT)

    def expression(self, node: ast.Node, least: int, indent: int, after: int = 0) -> None:
        """A node on the current line if it fits with the ``after`` characters that follow, else broken."""
        text = flat(node, least)
        if id(node) not in self.broken and len(self.current) + len(text) + after <= WIDTH:
            self.current += text
            return
        match node:
            case ast.Chain():
                if not least:
                    self.chain(node, indent, started=True)
                    return
                self.current += "("
                self.begin(node, 0, indent + INDENT)
                self.chain(node, indent + INDENT)
                self.line(indent)
                self.current += ")"
            case ast.Unary(operator, operand):
                parenthesised = level_of(node) < least
                self.current += ("(" if parenthesised else "") + operator + (" " if operator == "not" else "")
                self.expression(operand, level_of(node), indent, after)
                self.current += ")" if parenthesised else ""
            case ast.Call(callee, (ast.Argument(name, ast.List(items) as only),)) if not self.has_comments(
                node
            ):
                self.current += f"{callee.text}(" + (f"{name.text}=" if name else "")
                self.filled(only, items, indent)
                self.current += ")"
            case ast.Call(callee, arguments):
                self.current += callee.text
                self.bracketed(node, "(", arguments, ")", indent)
            case ast.Argument(name, value):
                self.current += f"{name.text}=" if name else ""
                self.expression(value, 1 if name else 0, indent, after)
            case ast.List(items):
                self.filled(node, items, indent)
            case ast.Index(base, index):
                self.current += base.text
                self.bracketed(node, "[", (index,), "]", indent, comma=False)
            case ast.Where(query, key, condition):
                self.current += "where"
                self.bracketed(
                    node, f"({query.text}, {key.text}:", (condition,), ")", indent, comma=False
                )  # fmt: skip
            case ast.Block(kind, cases):
                self.current += kind + " "
                self.bracketed(node, "{", cases, "}", indent, comma=False)
            case ast.Case(selector, body):
                self.current += f"{flat(selector)} => "
                self.expression(body, 1, indent)
            case _:
                self.current += text

    def chain(self, node: ast.Chain, indent: int, started: bool = False) -> None:
        """The operands of a chain, each on a line of its own; the line of the first has begun."""
        for i, operand in enumerate(node.operands):
            if i:
                self.begin(node, i, indent)
                self.current += node.operators[i - 1] + " "
            self.expression(operand, operand_level(node, i), indent)

    def bracketed(
        self,
        node: ast.Node,
        opening: str,
        items: tuple[ast.Node, ...],
        closing: str,
        indent: int,
        comma: bool = True,
    ) -> None:
        """Items between brackets, one to a line."""
        self.current += opening
        for i, item in enumerate(items):
            self.begin(node, i, indent + INDENT)
            self.expression(item, 0, indent + INDENT, after=1)
            self.current += "," if comma else ""
        self.close(node, len(items), closing, indent)

    def filled(self, node: ast.List, items: tuple[ast.Node, ...], indent: int) -> None:
        """Items between brackets, as many on a line as fit."""
        self.current += "["
        start = " " * (indent + INDENT)
        self.begin(node, 0, indent + INDENT)
        for i, item in enumerate(items):
            if i and ((id(node), i) in self.attached or len(self.current) + len(flat(item)) + 2 > WIDTH):
                self.begin(node, i, indent + INDENT)
            if self.current != start:
                self.current += " "
            self.expression(item, 0, indent + INDENT, after=1)
            self.current += ","
        self.close(node, len(items), "]", indent)

    def close(self, node: ast.Node, position: int, closing: str, indent: int) -> None:
        self.newline()
        for comment in self.attached.get((id(node), position), ()):
            self.comment(comment, indent + INDENT)
        self.current = " " * indent + closing
