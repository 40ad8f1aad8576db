"""Text to syntax tree.

The tokens are cut into statements first: each begins with a reserved word, so that an error in one does not
hide those in the next. Brackets are matched before parsing, because "opened here, never closed" says more
than the token at which the parser gave up.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from patterndsl.diagnostics import syntax as errors
from patterndsl.diagnostics.base import Diagnostics, SpecError
from patterndsl.syntax import ast, limits
from patterndsl.syntax.source import Source, Span
from patterndsl.syntax.tables import grammar

if TYPE_CHECKING:
    from lark import Lark, Token

STATEMENT_WORDS = ("IMPORT", "PARAM", "INPUT", "PATTERN")
OPENING = {"LPAR": "(", "LSQB": "[", "LBRACE": "{"}
CLOSING = {"RPAR": "(", "RSQB": "[", "RBRACE": "{"}


class Chunk(NamedTuple):
    """The tokens of one statement, or of what stands before the first; and the token after them."""

    tokens: list[Token]
    following: Token | None


def decode(data: bytes, name: str) -> Source:
    """The source in a file's bytes. Raises SpecError if they are not UTF-8, or too many."""
    if len(data) > 4 * limits.MAX_SOURCE:
        raise SpecError(errors.SourceTooLarge(file=name, limit=limits.MAX_SOURCE))
    try:
        return Source(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SpecError(errors.NotText(file=name, offset=error.start)) from None


def parse_source(source: Source) -> ast.File:
    """The syntax tree of a source. Raises SpecError with every syntax error that was found."""
    from patterndsl.syntax.build import TreeBuilder

    if len(source.text) > limits.MAX_SOURCE:
        raise SpecError(errors.SourceTooLarge(file=source.name, limit=limits.MAX_SOURCE))
    found = Diagnostics()
    parser = grammar()
    tokens, comments = lex(parser, source, found)
    builder = TreeBuilder(source, found)
    statements: list[ast.Statement] = []
    expression: ast.Expression | None = None
    chunks = cut(tokens)
    for number, chunk in enumerate(chunks):
        if len(found) > limits.MAX_ERRORS:
            break
        alone = len(chunks) == 1 and chunk.tokens[0].type not in STATEMENT_WORDS
        tree = ChunkParser(parser, source, found, chunk, alone).run()
        if tree is None:
            continue
        if alone:
            expression = builder.expression(tree)
        elif chunk.tokens[0].type in STATEMENT_WORDS:
            statements.append(builder.statement(tree))
        else:
            assert number == 0, "only what stands before the first statement has no word of its own"
            found.add(errors.MixedFile(span=token_span(source, chunk.tokens[0])))
    if not tokens and not len(found):
        found.add(errors.EmptySpec(span=Span(source, len(source.text), len(source.text))))
    if len(statements) > limits.MAX_STATEMENTS:
        span = statements[limits.MAX_STATEMENTS].span
        found.add(errors.TooLong(length=len(statements), limit=limits.MAX_STATEMENTS, span=span))
    found.raise_if_errors()
    return ast.File(tuple(statements), expression, comments, span=Span(source, 0, len(source.text)))


def lex(parser: Lark, source: Source, found: Diagnostics) -> tuple[list[Token], tuple[ast.Comment, ...]]:
    """Tokens and comments. Bad tokens are reported, and stay in the list: their statement is skipped."""
    tokens: list[Token] = []
    comments: list[ast.Comment] = []
    bad_until = -1
    for token in parser.lex(source.text):
        span = token_span(source, token)
        if token.type == "COMMENT":
            line_start = source.text.rfind("\n", 0, span.start) + 1
            own_line = not source.text[line_start : span.start].strip()
            comments.append(ast.Comment(token.value.rstrip(), own_line, span=span))
            continue
        tokens.append(token)
        if len(tokens) > limits.MAX_TOKENS:
            unit = "words and signs"
            raise SpecError(errors.SourceTooLarge(file=source.name, limit=limits.MAX_TOKENS, unit=unit))
        if token.type == "BAD_CHARACTER":
            if span.start != bad_until:  # one error for a run of them
                found.add(errors.UnexpectedCharacter(characters=token.value, span=span))
            bad_until = span.end
        elif token.type == "BAD_STRING":
            found.add(errors.BadString(quote=token.value[0], span=span))
        elif token.type == "BAD_NUMBER":
            found.add(errors.BadNumber(text=token.value, span=span))
        if len(found) > limits.MAX_ERRORS:
            break
    return tokens, tuple(comments)


def cut(tokens: list[Token]) -> list[Chunk]:
    """The tokens, cut before each statement."""
    starts = [i for i, token in enumerate(tokens) if token.type in STATEMENT_WORDS and i > 0]
    edges = [0, *starts, len(tokens)]
    return [Chunk(tokens[a:b], tokens[b] if b < len(tokens) else None) for a, b in pairwise(edges) if b > a]


def token_span(source: Source, token: Token) -> Span:
    assert token.start_pos is not None and token.end_pos is not None, "the lexer sets both"
    return Span(source, token.start_pos, token.end_pos)


class ChunkParser:
    """Parses one chunk, or reports why it cannot."""

    def __init__(self, parser: Lark, source: Source, found: Diagnostics, chunk: Chunk, alone: bool) -> None:
        self.parser = parser
        self.source = source
        self.found = found
        self.tokens, self.following = chunk
        self.alone = alone

    def run(self) -> object | None:
        """The lark tree, or None where errors were reported."""
        from lark.exceptions import UnexpectedToken

        if any(token.type.startswith("BAD_") for token in self.tokens) or not self.brackets_match():
            return None
        start = "statement" if self.tokens[0].type in STATEMENT_WORDS else "expression"
        state = self.parser.parse_interactive(start=start)
        for position, token in enumerate(self.tokens):
            try:
                state.feed_token(token)
            except UnexpectedToken:
                self.unexpected(position, self.accepted(start, position))
                return None
        try:
            tree: object = state.feed_eof(self.tokens[-1])  # type: ignore[no-untyped-call]
        except UnexpectedToken:
            end = self.tokens[-1].end_pos or 0
            self.found.add(
                errors.UnexpectedEnd(
                    expected=expectations(self.parser, self.accepted(start, len(self.tokens))),
                    statement=not self.alone,
                    span=Span(self.source, end, end),
                )
            )
            return None
        return tree

    def accepted(self, start: str, position: int) -> set[str]:
        """The terminals that could stand at a position.

        A parser that met a wrong token has already closed what that token cannot continue, so the tokens
        before it are parsed once more.
        """
        state = self.parser.parse_interactive(start=start)
        for token in self.tokens[:position]:
            state.feed_token(token)
        return set(state.accepts())  # type: ignore[no-untyped-call]

    def brackets_match(self) -> bool:
        """Whether all brackets are closed in order and not nested too deeply; reports what is not."""
        stack: list[Token] = []
        for token in self.tokens:
            if token.type in OPENING:
                stack.append(token)
                if len(stack) > limits.MAX_DEPTH:
                    self.found.add(errors.TooDeep(limit=limits.MAX_DEPTH, span=self.span(token)))
                    return False
            elif token.type in CLOSING:
                if not stack:
                    self.found.add(errors.UnmatchedBracket(bracket=token.value, span=self.span(token)))
                    return False
                opening = stack.pop()
                if opening.value != CLOSING[token.type]:
                    self.unclosed(opening, token, token.value)
                    return False
        if stack:
            self.unclosed(stack[-1], self.following)
        return not stack

    def unclosed(self, opening: Token, at: Token | None, closed_by: str = "") -> None:
        missed_at = self.span(at) if at is not None else None
        self.found.add(
            errors.UnclosedBracket(
                bracket=opening.value, missed_at=missed_at, closed_by=closed_by, span=self.span(opening)
            )
        )

    def span(self, token: Token) -> Span:
        return token_span(self.source, token)

    def unexpected(self, position: int, accepts: set[str]) -> None:
        """Report the token at which the parser stopped, in the way that helps most."""
        token = self.tokens[position]
        span = self.span(token)
        after = self.tokens[position + 1].type if position + 1 < len(self.tokens) else "$END"
        if "NAME" in accepts and is_word(token) and ("LPAR" not in accepts or after == "ASSIGN"):
            self.found.add(errors.ReservedWord(word=token.value, span=span))
        elif (stray := self.stray(position, after, accepts)) is not None:
            is_definition = stray is not token or after in ("ASSIGN", "NAME")
            self.found.add(
                errors.MixedFile(
                    name=stray.value if is_definition else "",
                    instead=self.definition(self.tokens.index(stray)) if is_definition else "",
                    span=self.span(stray),
                )
            )
        else:
            self.found.add(
                errors.UnexpectedToken(
                    found=token.value,
                    expected=expectations(self.parser, accepts),
                    advice=self.advice(position, accepts),
                    span=span,
                )
            )

    def stray(self, position: int, after: str, accepts: set[str]) -> Token | None:
        """The first token of what stands among the statements, or defines a name, without being one."""
        token = self.tokens[position]
        first = self.tokens[0]
        if position == 1 and first.type == "NAME" and "ASSIGN" in (token.type, after):
            return first  # `w = 4`, `patern main = …`
        if position and "$END" in accepts and not self.alone and token.line != self.tokens[position - 1].line:
            return token
        return None

    def definition(self, start: int) -> str:
        """How `w = 4` or `def main = causal` begins as a statement: what is one number may be a param."""
        rest = self.tokens[start:]
        line = [token for token in rest if token.line == rest[0].line]
        name = line[1] if len(line) > 1 and line[1].type == "NAME" else line[0]
        is_number = [token.type for token in line[-2:]] == ["ASSIGN", "INT"]
        return f"{'param' if is_number else 'pattern'} {name.value} = …"

    def advice(self, position: int, accepts: set[str]) -> str | None:
        token = self.tokens[position]
        before = self.tokens[position - 1] if position else None
        bracket = self.enclosing(position)
        if before is not None and token.value == before.value and token.value in ("&", "|", "~", "="):
            word = {"&": "and", "|": "or", "~": "not"}.get(token.value)
            if word and self.in_predicate(position):
                return f"in a predicate, write `{word}`"
            return f"write a single `{token.value}`"
        if token.type == "ASSIGN" and "EQUAL" in accepts:
            return "`==` compares; `=` gives an argument its value"
        if token.type == "COMMA" and bracket is not None and self.tokens[bracket].type == "LPAR":
            if bracket and self.tokens[bracket - 1].type == "WHERE":
                return "`where` names two positions and a condition: `where(q, k: k < 4)`"
            if not bracket or self.tokens[bracket - 1].type != "NAME":
                return "lists and shapes stand in square brackets: `[a, b]`"
        if bracket and self.tokens[bracket - 1].type == "WHERE" and not self.in_predicate(position):
            return "`where` names two positions and a condition: `where(q, k: k < 4)`"
        in_cases = bracket is not None and self.tokens[bracket].type == "LBRACE"
        if token.type == "COMMA" and in_cases and "ARROW" not in accepts:
            return "cases are separated by `;`"
        if "ARROW" in accepts:
            return "a case is written `0:4 => pattern`"
        if token.type == "ARROW":
            return "cases stand in `heads { … }` or `layers { … }`"
        if "UNION" in accepts and starts_operand(token):
            missing = "a comma or an operator" if "COMMA" in accepts else "an operator such as `&` or `|`"
            return f"is {missing} missing before it?"
        if token.type == "PLUS" and "INT" in accepts:
            return "numbers take no plus sign"
        if token.value == "//":
            return "comments begin with `#`"
        if token.type == "LBRACE" and before is not None and before.type == "IN":
            return "`in` is followed by a list in square brackets: `in [0, 4:8]`"
        if token.type == "COLON" and accepts == {"ASSIGN"}:
            return "a param is a whole number and has no type: `param window = 128`"
        return None

    def in_predicate(self, position: int) -> bool:
        """Whether a token stands in the condition of a `where`."""
        bracket = self.enclosing(position)
        while bracket is not None:
            if bracket and self.tokens[bracket - 1].type == "WHERE":
                return any(token.type == "COLON" for token in self.tokens[bracket:position])
            bracket = self.enclosing(bracket)
        return False

    def enclosing(self, position: int) -> int | None:
        """Where the innermost bracket around a token is opened."""
        depth = 0
        for i in range(position - 1, -1, -1):
            if self.tokens[i].type in CLOSING:
                depth += 1
            elif self.tokens[i].type in OPENING:
                if depth == 0:
                    return i
                depth -= 1
        return None


def is_word(token: Token) -> bool:
    """Whether a token is a word of the language."""
    return token.type not in ("NAME", "TRUE", "FALSE") and token.value.replace("_", "a").isalpha()


def starts_operand(token: Token) -> bool:
    return token.type in {
        "NAME",
        "INT",
        "DECIMAL",
        "STRING",
        "TRUE",
        "FALSE",
        "LPAR",
        "LSQB",
        "WHERE",
        "HEADS",
        "LAYERS",
    }


def expectations(parser: Lark, accepts: set[str]) -> tuple[str, ...]:
    """What may come next, in words."""
    rest = set(accepts) - {"SEMICOLON"}
    found: list[str] = []
    if {"NAME", "LPAR", "INT", "STRING"} <= rest:
        found.append("an expression")
        rest -= {
            "NAME",
            "LPAR",
            "INT",
            "DECIMAL",
            "STRING",
            "TRUE",
            "FALSE",
            "NOT",
            "MINUS",
            "COMPLEMENT",
            "LSQB",
            "WHERE",
        }
        rest -= {"HEADS", "LAYERS"}
    elif "UNION" in rest:
        found.append("an operator")
        rest -= {t.name for t in parser.terminals if is_operator(t.pattern.value)} | {
            "LPAR",
            "LSQB",
            "DOT",
            "AND",
        }
        rest -= {"OR", "IN", "NOT"}
    for kind, words in (("NAME", "a name"), ("INT", "a number"), ("STRING", "a string")):
        if kind in rest:
            found.append(words)
    plain = {t.name: t.pattern.value for t in parser.terminals if t.name not in ("NAME", "INT", "STRING")}
    found += sorted(f"`{plain[name]}`" for name in rest if name in plain)
    if "$END" in rest:
        found.append("the end")
    return tuple(found) if len(found) <= 6 else ()


def is_operator(text: str) -> bool:
    return bool(text) and all(c in "|&^+-*/%<>=!" for c in text) and text not in ("=", "=>")
