"""The syntax tree: what was written, before anything is known about names and kinds.

Nodes compare and hash by what they say, not by where they stand: spans are left out. Parentheses are not
kept; the formatter puts back those that the precedence of the operators requires.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from patterndsl.syntax.source import Source, Span

NOWHERE = Span(Source("<none>", ""), 0, 0)


@dataclass(frozen=True, kw_only=True)
class Node:
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Name(Node):
    """A name where it is defined or given to an argument."""

    text: str


@dataclass(frozen=True)
class Number(Node):
    value: int


@dataclass(frozen=True)
class Decimal(Node):
    """``0.95``, as it is written: for the few arguments that are shares."""

    text: str


@dataclass(frozen=True)
class String(Node):
    """A string in double quotes; there are no escapes."""

    value: str


@dataclass(frozen=True)
class Bool(Node):
    value: bool


@dataclass(frozen=True)
class Reference(Node):
    """A name, or names joined by dots: ``window``, ``lf.longformer``."""

    parts: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Argument(Node):
    """An argument of a call: by position where ``name`` is None."""

    name: Name | None
    value: Expression


@dataclass(frozen=True)
class Call(Node):
    callee: Reference
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Index(Node):
    """``doc[q]``."""

    base: Reference
    index: Expression


@dataclass(frozen=True)
class Slice(Node):
    """``start:stop:step`` in a list, each part optional."""

    start: Expression | None
    stop: Expression | None
    step: Expression | None


@dataclass(frozen=True)
class List(Node):
    """``[0, 5, 8:16]``: token positions, or a shape."""

    items: tuple[Expression | Slice, ...]


@dataclass(frozen=True)
class Unary(Node):
    """``-x``, ``~p``, ``not b``."""

    operator: str
    operand: Expression


@dataclass(frozen=True)
class Chain(Node):
    """Operands joined by operators of one precedence: ``a | b``, ``x + y - z``, ``0 <= k < n``, ``a ** b``.

    One more operand than operators. Grouped from the left, except ``**`` (always two operands) and
    comparisons (each holds between its neighbours, as in Python).
    """

    operators: tuple[str, ...]
    operands: tuple[Expression, ...]
    operator_spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Where(Node):
    """``where(q, k: condition)``."""

    query: Name
    key: Name
    condition: Expression


@dataclass(frozen=True)
class Selector(Node):
    """Which heads or layers a case is for.

    ``every`` period (in ``start``), ``one`` index (in ``start``), ``range`` from start to stop, or the
    ``rest``.
    """

    kind: Literal["every", "one", "range", "rest"]
    start: Number | Reference | None = None
    stop: Number | Reference | None = None


@dataclass(frozen=True)
class Case(Node):
    selector: Selector
    body: Expression


@dataclass(frozen=True)
class Block(Node):
    """``heads { … }`` or ``layers { … }``."""

    kind: Literal["heads", "layers"]
    cases: tuple[Case, ...]


Expression = (
    Number | Decimal | String | Bool | Reference | Call | Index | List | Unary | Chain | Where | Block
)


@dataclass(frozen=True)
class Import(Node):
    """``import "file.attn" as x``: a String; ``import longformer``: a Name from the shipped library."""

    target: String | Name
    alias: Name | None


@dataclass(frozen=True)
class Param(Node):
    name: Name
    value: Expression


@dataclass(frozen=True)
class Input(Node):
    name: Name
    kind: Name


@dataclass(frozen=True)
class Parameter(Node):
    """An argument that a pattern definition declares."""

    name: Name
    default: Expression | None


@dataclass(frozen=True)
class Pattern(Node):
    """``pattern name(parameters) = body``; ``parameters`` is None where there are no parentheses."""

    name: Name
    parameters: tuple[Parameter, ...] | None
    body: Expression


Statement = Import | Param | Input | Pattern


@dataclass(frozen=True)
class Comment(Node):
    """``text`` with its ``#``. ``own_line`` says whether nothing but white space precedes it on its line."""

    text: str
    own_line: bool


@dataclass(frozen=True)
class File(Node):
    """A parsed file: statements, or a single expression (then ``statements`` is empty)."""

    statements: tuple[Statement, ...]
    expression: Expression | None
    comments: tuple[Comment, ...] = ()


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below a node, in the order of the text."""
    for value in vars(node).values():
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))
