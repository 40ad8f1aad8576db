"""Reads the text that `ir.mlir` writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np

from patterndsl.ir.expr import OPS, Expr
from patterndsl.ir.mlir import OPERATIONS
from patterndsl.ir.nodes import (
    INPUT_KINDS,
    Call,
    Cases,
    Complement,
    Difference,
    Function,
    Module,
    Node,
    Pattern,
    Range,
    Tokens,
    Where,
)
from patterndsl.ir.table import Table
from patterndsl.patterns.base import parameters

_TOKEN = re.compile(r"""\s*(?:(?P<word>[#%$@]?[A-Za-z_0-9][\w.']*|-\d+)|(?P<string>"[^"]*")|(?P<mark>.))""")
T = TypeVar("T")


class TextError(ValueError):
    """The text is no module; says in which line."""


def parse(text: str) -> Module:
    """The module in a text. Raises `TextError`."""
    return _Reader(text).module()


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        line, end = 1, 0
        text = text.rstrip()
        while end < len(text):
            found = _TOKEN.match(text, end)
            assert found is not None  # any character is a mark
            line += text.count("\n", end, found.start(found.lastgroup or 0))
            end = found.end()
            self.tokens.append((found.group(found.lastgroup or 0), line))
        self.at = 0
        self.alias: dict[str, Expr] = {}
        self.nodes: dict[str, Node] = {}

    # -- tokens --------------------------------------------------------------------------------------

    def fail(self, expected: str) -> NoReturn:
        found, line = self.tokens[self.at] if self.at < len(self.tokens) else ("the end", 0)
        where = f"line {line}" if line else "the end"
        raise TextError(f"{where}: expected {expected}, found {found}")

    @property
    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek
        if not token or (expected and token != expected):
            self.fail(expected or "more")
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        found = self.peek == token
        self.at += found
        return found

    def name(self, sigil: str) -> str:
        token = self.take()
        if not token.startswith(sigil) or len(token) < 2:
            self.at -= 1
            self.fail(f"a name after {sigil}")
        return token[len(sigil) :]

    def integer(self) -> int:
        token = self.take()
        if not re.fullmatch(r"-?\d+", token):
            self.at -= 1
            self.fail("a whole number")
        return int(token)

    def several(self, one: Callable[[], T], end: str) -> list[T]:
        """Items with commas between, up to the closing mark."""
        items: list[T] = []
        while not self.accept(end):
            if items:
                self.take(",")
            items.append(one())
        return items

    # -- modules -------------------------------------------------------------------------------------

    def module(self) -> Module:
        params: dict[str, Expr] = {}
        inputs: dict[str, str] = {}
        functions: dict[str, Function] = {}
        main: Node | None = None
        self.take("attn.module")
        self.take("{")
        while not self.accept("}"):
            match self.take():
                case "attn.param":
                    name = self.name("@")
                    self.take("=")
                    params[name] = self.expression()
                case "attn.input":
                    name = self.name("@")
                    inputs[name] = self.input_kind()
                case "attn.func":
                    name = self.name("@")
                    self.take("(")
                    arguments = tuple(self.several(lambda: self.name("%"), ")"))
                    functions[name] = Function(arguments, self.region())
                case "attn.main":
                    main = self.region()
                case _:
                    self.at -= 1
                    self.fail("a declaration")
        if main is None or self.peek:
            self.fail("attn.main" if main is None else "nothing more")
        return Module(main, params, inputs, functions)

    def input_kind(self) -> str:
        if not self.accept(":"):
            return "token"
        kind = self.take()
        if kind not in INPUT_KINDS:
            self.at -= 1
            self.fail("a kind of input")
        return kind

    def region(self) -> Node:
        self.alias, self.nodes = {}, {}
        self.take("{")
        while not self.accept("attn.return"):
            target = self.take()
            self.take("=")
            if target.startswith("#"):
                self.alias[target] = self.expression()
            else:
                self.nodes[target] = self.operation()
        result = self.operand()
        self.take("}")
        return result

    def operand(self) -> Node:
        token = self.take()
        if token not in self.nodes:
            self.at -= 1
            self.fail("an operation above")
        return self.nodes[token]

    def operation(self) -> Node:
        name = self.take().removeprefix("attn.")
        function = self.name("@") if name == "call" else ""
        operands: list[Node] = []
        following = self.tokens[self.at + 1 : self.at + 2]
        if self.peek.startswith("%") and following and following[0][0] != "=":  # else the next line begins
            operands.append(self.operand())
            while self.accept(","):
                operands.append(self.operand())
        attributes: dict[str, Any] = {}
        if self.accept("{"):
            attributes = dict(self.several(self.attribute, "}"))
        return self.built(name, function, operands, attributes)

    def built(self, name: str, function: str, operands: list[Node], attributes: dict[str, Any]) -> Node:
        from patterndsl.patterns import builtin

        def given(key: str) -> Any:
            return attributes.pop(key) if key in attributes else self.fail(f"the attribute {key} of {name}")

        def operand() -> Node:
            return operands.pop(0) if operands else self.fail(f"an operand of {name}")

        cls = OPERATIONS.get(name) or builtin(name)
        if cls is None:
            self.fail(f"an operation, not {name}")
        node: Node
        if issubclass(cls, Pattern):
            values: list[Any] = []
            for q in parameters(cls):
                if q.kind.sort == "pattern":
                    values.append(operand())
                else:
                    x = given(q.name) if q.required else attributes.pop(q.name, q.default)
                    flag = q.kind.sort in ("flag", "shape") and isinstance(x, Expr)
                    values.append(x.value if flag else x)
            node = cls(*values)
        elif cls is Where:
            node = Where(given("keep"))
        elif cls is Call:
            node = Call(function, given("arguments"))
        elif cls is Difference:
            node = Difference(operand(), operand())
        elif cls is Complement:
            node = Complement(operand())
        elif issubclass(cls, Cases):
            has_rest = attributes.pop("otherwise", None) is not None
            rest = operands.pop() if has_rest and operands else None
            node, operands = cls(given("ranges"), tuple(operands), rest), []
        else:
            node, operands = cls(tuple(operands)), []  # type: ignore[call-arg]
        if operands or attributes:
            self.fail(f"no more operands or attributes of {name}")
        return node

    # -- attributes ----------------------------------------------------------------------------------

    def attribute(self) -> tuple[str, Any]:
        key = self.take()
        self.take("=")
        return key, self.value(key)

    def value(self, key: str) -> Any:
        if self.peek.startswith('"'):
            return self.take()[1:-1]
        if re.fullmatch(r"\d+\.\d+", self.peek):
            return float(self.take())
        if self.accept("none"):
            return None
        if self.accept("["):
            return tuple(self.several(self.range if key == "ranges" else self.expression, "]"))
        if self.accept("tokens"):
            self.take("<")
            return Tokens(tuple(self.several(self.item, ">")))
        e = self.expression()
        if self.accept(":"):
            self.take("index")
        return e

    def range(self) -> Range:
        start = self.integer()
        self.take(":")
        stop = None if self.accept("_") else self.integer()
        self.take(":")
        return Range(start, stop, self.integer())

    def item(self) -> Any:
        first = self.bound()
        if not self.accept(":"):
            return first
        second = self.bound()
        self.take(":")
        return first, second, self.bound()

    def bound(self) -> Expr | None:
        return None if self.accept("_") else self.expression()

    def expression(self) -> Expr:
        token = self.take()
        if token in ("true", "false"):
            return Expr("bool", (), token == "true")
        if re.fullmatch(r"-?\d+", token):
            return Expr("const", (), int(token))
        if token.startswith("#"):
            return self.alias[token] if token in self.alias else self.fail("an expression above")
        if not self.accept("("):
            return Expr("var", (), token)
        if token not in OPS:
            self.at -= 2
            self.fail("an operation on numbers")
        value: object = None
        if token == "input":
            value = self.name("@")
        elif token in ("forall", "exists"):
            name = self.take()
            self.take(",")
            value = (name, self.integer())
        elif token == "lookup":
            value = self.table()
        if value is not None:
            self.take(",")
        return Expr(token, tuple(self.several(self.expression, ")")), value)

    def table(self) -> Table:
        self.take("table")
        self.take("<")
        columns = self.integer()
        self.take(",")
        self.take("[")
        rows = self.several(self.row, "]")
        self.take(">")
        return Table(np.array(rows, np.int32).reshape(len(rows), -1), columns)

    def row(self) -> list[int]:
        self.take("[")
        return self.several(self.integer, "]")
