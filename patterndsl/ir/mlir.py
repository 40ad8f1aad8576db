"""The IR as MLIR-style text: one operation a line, what is shared is written once.

    attn.module {
      attn.input @doc
      attn.func @first(%m) {
        %0 = attn.where {keep = lt(k, %m)}
        attn.return %0
      }
      attn.main {
        %0 = attn.local {w = 128 : index}
        %1 = attn.call @first {arguments = [4]}
        %2 = attn.union %0, %1
        attn.return %2
      }
    }

Attributes are the arguments that differ from their defaults. Expressions are written as calls; those that
are used several times, or nest deeply, have a line of their own (``#0 = …``). ``parse(text(m))`` is ``m``
again: the same nodes, declarations and functions, without spans (`ir.mlir_parser`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from patterndsl.ir.expr import Expr, bound
from patterndsl.ir.nodes import (
    Call,
    Cases,
    Complement,
    Difference,
    Heads,
    Intersection,
    Layers,
    Mix,
    Module,
    Node,
    Pattern,
    Range,
    Sum,
    SymmetricDifference,
    Tokens,
    Union,
    Where,
)
from patterndsl.ir.normal import postorder
from patterndsl.ir.table import Table
from patterndsl.ir.text import decimal_text
from patterndsl.patterns.base import parameters

OPERATIONS: dict[str, type[Node]] = {
    "union": Union,
    "intersection": Intersection,
    "symmetric_difference": SymmetricDifference,
    "sum": Sum,
    "difference": Difference,
    "complement": Complement,
    "mix": Mix,
    "where": Where,
    "heads": Heads,
    "layers": Layers,
    "call": Call,
}
NAMES = {cls: name for name, cls in OPERATIONS.items()}
DEEPEST = 30
"""Levels of calls that are written in one expression."""


def text(module: Module) -> str:
    """The module as text. Raises ValueError where it holds a Python function (a `reduce` of one's own)."""
    lines = ["attn.module {"]
    lines += [f"  attn.param @{name} = {_whole(e)}" for name, e in module.params.items()]
    for name, kind in module.inputs.items():
        lines.append(f"  attn.input @{name}" + (f" : {kind}" if kind != "token" else ""))
    for name, function in module.functions.items():
        arguments = ", ".join(f"%{a}" for a in function.arguments)
        lines += _region(f"attn.func @{name}({arguments})", function.body)
    lines += _region("attn.main", module.main)
    return "\n".join([*lines, "}", ""])


def _whole(e: Expr) -> str:
    return _Expressions({}).call(e)


def _region(head: str, body: Node) -> list[str]:
    nodes = postorder(body)
    expressions = _Expressions.of(e for p in nodes for e in _expressions_of(p))
    lines = [f"#{i} = {expressions.call(e)}" for e, i in expressions.alias.items()]
    number = {p: i for i, p in enumerate(nodes)}
    lines += [f"%{number[p]} = {_operation(p, number, expressions)}" for p in nodes]
    return [f"  {head} {{", *(f"    {line}" for line in (*lines, f"attn.return %{number[body]}")), "  }"]


def _operation(p: Node, number: dict[Node, int], expressions: _Expressions) -> str:
    name = p.name if isinstance(p, Pattern) else NAMES[type(p)]
    parts = [f"attn.{name}"]
    if isinstance(p, Call):
        parts.append(f"@{p.function}")
    if p.children:
        parts.append(", ".join(f"%{number[c]}" for c in _operands(p)))
    attributes = [f"{key} = {_attribute(x, expressions)}" for key, x in _attributes(p)]
    if attributes:
        parts.append(f"{{{', '.join(attributes)}}}")
    return " ".join(parts)


def _operands(p: Node) -> tuple[Node, ...]:
    match p:
        case Cases():
            return (*p.patterns, *(() if p.otherwise is None else (p.otherwise,)))
        case Pattern():
            values = (getattr(p, q.name) for q in parameters(type(p)))
            return tuple(x for x in values if isinstance(x, Node))
    return p.children


def _attributes(p: Node) -> list[tuple[str, Any]]:
    match p:
        case Where():
            return [("keep", p.keep)]
        case Call():
            return [("arguments", p.arguments)]
        case Cases():
            return [("ranges", p.ranges), *([("otherwise", True)] if p.otherwise is not None else [])]
        case Pattern():
            given = [(q, getattr(p, q.name)) for q in parameters(type(p))]
            return [(q.name, x) for q, x in given if x is not q.default and not isinstance(x, Node)]
    return []


def _expressions_of(p: Node) -> list[Expr]:
    found: list[Expr] = []

    def note(e: Expr) -> Expr:
        found.append(e)
        return e

    p.rebuild(lambda child: child, note)
    return found


def _attribute(x: Any, expressions: _Expressions) -> str:
    match x:
        case None:
            return "none"
        case bool():
            return "true" if x else "false"
        case str():
            return f'"{x}"'
        case float():
            return decimal_text(x)
        case Expr():
            return f"{x.value} : index" if x.op == "const" else expressions.use(x)
        case Tokens():
            return f"tokens<{', '.join(_item(i, expressions) for i in x.items)}>"
        case tuple() if x and isinstance(x[0], Range):
            return f"[{', '.join(f'{r.start}:{_or_none(r.stop)}:{r.step}' for r in x)}]"
        case tuple():
            return f"[{', '.join(expressions.use(e) for e in x)}]"
    raise ValueError(f"{x!r} is a Python object, which has no text")


def _or_none(x: object) -> str:
    return "_" if x is None else str(x)


def _item(item: Any, expressions: _Expressions) -> str:
    if isinstance(item, Expr):
        return expressions.use(item)
    return ":".join("_" if x is None else expressions.use(x) for x in item)


class _Expressions:
    """Expressions as calls; ``alias`` numbers those that have a line of their own."""

    def __init__(self, alias: dict[Expr, int]) -> None:
        self.alias = alias

    @classmethod
    def of(cls, roots: Iterable[Expr]) -> _Expressions:
        """Aliases for what is used twice (unless it is small) and for what nests deeply."""
        every: dict[Expr, None] = {}
        uses: dict[Expr, int] = {}
        for root in roots:
            uses[root] = uses.get(root, 0) + 1
            for e in root.walk():
                if e not in every:
                    every[e] = None
                    for a in e.args:
                        uses[a] = uses.get(a, 0) + 1
        alias: dict[Expr, int] = {}
        depth: dict[Expr, int] = {}
        for e in every:
            depth[e] = 1 + max((depth[a] for a in e.args), default=-1)
            if (uses[e] > 1 and depth[e] > 1) or depth[e] >= DEEPEST:
                alias[e] = len(alias)
                depth[e] = 0
        return cls(alias)

    def use(self, e: Expr) -> str:
        return f"#{self.alias[e]}" if e in self.alias else self.call(e)

    def call(self, e: Expr) -> str:
        match e.op:
            case "const" | "var":
                return str(e.value)
            case "bool":
                return "true" if e.value else "false"
            case "input":
                return f"input(@{e.value}, {self.use(e.args[0])})"
        arguments = [self.use(a) for a in e.args]
        if e.op in ("forall", "exists"):
            name, trips = bound(e)
            arguments = [name, str(trips), *arguments]
        elif e.op == "lookup":
            assert isinstance(e.value, Table)
            arguments = [f"table<{e.value.columns}, {e.value.entries.tolist()}>", *arguments]
        return f"{e.op}({', '.join(arguments)})"
