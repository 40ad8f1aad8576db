"""IR nodes as spec text, for messages and reports (`ir.mlir` prints the graph itself)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

from patterndsl.ir.expr import Expr, bound
from patterndsl.ir.nodes import (
    Call,
    Complement,
    Difference,
    Heads,
    Intersection,
    Layers,
    Mix,
    Node,
    Pattern,
    Range,
    Sum,
    SymmetricDifference,
    Tokens,
    Union,
    Where,
)

_INFIX = {
    "or": ("or", 1), "and": ("and", 2),
    "lt": ("<", 4), "le": ("<=", 4), "eq": ("==", 4), "ne": ("!=", 4),
    "add": ("+", 5), "sub": ("-", 5),
    "mul": ("*", 6), "floordiv": ("//", 6), "mod": ("%", 6), "div": ("/", 6),
    "pow": ("**", 8),
}  # fmt: skip
_ATOM = 9


MAX_PARTS = 100_000
"""A pattern that shares its parts can be far longer as text than in memory; beyond this it is shown as
`…`.
"""
_SIZES: WeakKeyDictionary[Expr | Node, int] = WeakKeyDictionary()


def too_long(x: Expr | Node) -> bool:
    """Whether an expression or pattern has too many parts to be written out, shared ones counted each
    time.
    """
    stack: list[tuple[Expr | Node, tuple[Expr | Node, ...] | None]] = [(x, None)]
    while stack:
        part, below = stack.pop()
        if part in _SIZES:
            continue
        if below is None:
            below = part.args if isinstance(part, Expr) else _parts(part)
            stack.append((part, below))
            stack.extend((b, None) for b in below)
        else:
            _SIZES[part] = 1 + sum(_SIZES[b] for b in below)
    return _SIZES[x] > MAX_PARTS


def _parts(p: Node) -> tuple[Expr | Node, ...]:
    parts: list[Expr | Node] = []

    def note(part: Any) -> Any:
        parts.append(part)
        return part

    p.rebuild(note, note)
    return tuple(parts)


def expr_text(e: Expr) -> str:
    """The expression as a spec writes it (operations that only the compiler makes look like calls)."""
    return "…" if too_long(e) else _expr(e)[0]


def _expr(e: Expr) -> tuple[str, int]:
    if e.op == "const":
        return str(e.value), _ATOM if int(e) >= 0 else 7
    if e.op == "bool":
        return ("true" if e.value else "false"), _ATOM
    if e.op == "var":
        return str(e.value).lstrip("$%"), _ATOM
    if e.op == "input":
        return f"{e.value}[{_expr(e.args[0])[0]}]", _ATOM
    if e.op == "fact":
        return f"{e.value!r}[{', '.join(_expr(a)[0] for a in e.args)}]", _ATOM
    if e.op == "neg":
        return f"-{_at(e.args[0], 7)}", 7
    if e.op == "not":
        return f"not {_at(e.args[0], 3)}", 3
    if e.op in _INFIX:
        symbol, level = _INFIX[e.op]
        if e.op == "pow":
            return f"{_at(e.args[0], _ATOM)} ** {_at(e.args[1], 8)}", level
        strict = e.op in ("lt", "le", "eq", "ne")
        rest = [_at(a, level + 1) for a in e.args[1:]]
        return f" {symbol} ".join([_at(e.args[0], level + strict), *rest]), level
    if e.op in ("forall", "exists"):
        name, _ = bound(e)
        first, last, body = (_expr(a)[0] for a in e.args)
        return f"{e.op}({name} in {first}..{last}: {body})", _ATOM
    table = [repr(e.value)] if e.op == "lookup" else []
    return f"{e.op}({', '.join(table + [_expr(a)[0] for a in e.args])})", _ATOM


def _at(e: Expr, level: int) -> str:
    text, mine = _expr(e)
    return text if mine >= level else f"({text})"


def node_text(p: Node) -> str:
    """The pattern as a spec writes it."""
    return "…" if too_long(p) else _node(p)[0]


def _node(p: Node) -> tuple[str, int]:
    match p:
        case Union():
            return _join(p.members, "|", 1)
        case SymmetricDifference():
            return _join(p.members, "^", 2)
        case Intersection():
            return _join(p.members, "&", 3)
        case Sum():
            return _join(p.members, "+", 4)
        case Difference():
            return f"{_node_at(p.left, 4)} - {_node_at(p.right, 5)}", 4
        case Complement():
            return f"~{_node_at(p.operand, 6)}", 6
        case Where():
            return f"where(q, k: {expr_text(p.keep)})", _ATOM
        case Mix():
            return f"mix({', '.join(_node(b)[0] for b in p.branches)})", _ATOM
        case Heads() | Layers():
            cases = [f"{_range(r, p)} => {_node(b)[0]}" for r, b in zip(p.ranges, p.patterns, strict=True)]
            if p.otherwise is not None:
                cases.append(f"_ => {_node(p.otherwise)[0]}")
            return f"{type(p).__name__.lower()} {{ {'; '.join(cases)} }}", _ATOM
        case Call():
            return f"{p.function}({', '.join(expr_text(a) for a in p.arguments)})", _ATOM
        case Pattern():
            return _call(p), _ATOM
    return object.__repr__(p), _ATOM


def _join(members: tuple[Node, ...], symbol: str, level: int) -> tuple[str, int]:
    return f" {symbol} ".join(_node_at(m, level + 1) for m in members), level


def _node_at(p: Node, level: int) -> str:
    text, mine = _node(p)
    return text if mine >= level else f"({text})"


def _range(r: Range, p: Node) -> str:
    if isinstance(p, Layers) and r.step > 1 and r.start == r.step - 1 and r.stop is None:
        return f"every {r.step}"
    if r.stop == r.start + 1:
        return str(r.start)
    return f"{r.start}:{'' if r.stop is None else r.stop}"


def _call(p: Pattern) -> str:
    from patterndsl.patterns.base import parameters

    given = [(q, getattr(p, q.name)) for q in parameters(type(p)) if getattr(p, q.name) is not q.default]
    if not given:
        return p.name
    required = [q for q in parameters(type(p)) if q.required]
    texts = []
    for position, (parameter, value) in enumerate(given):
        plain = position == 0 and parameter is parameters(type(p))[0] and len(required) <= 2
        text = argument_text(value, parameter.kind.sort)
        texts.append(text if plain else f"{parameter.name}={text}")
    return f"{p.name}({', '.join(texts)})"


def argument_text(x: Any, sort: str) -> str:
    """An argument, of a parameter of that sort, as a spec writes it."""
    if isinstance(x, Expr):
        return expr_text(x)
    if isinstance(x, Tokens):
        return f"[{', '.join(_item(i) for i in x.items)}]"
    if isinstance(x, tuple):
        return expr_text(x[0]) if len(x) == 1 else f"[{', '.join(expr_text(e) for e in x)}]"
    if isinstance(x, Node):
        return node_text(x)
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, float):
        return decimal_text(x)
    return str(x) if sort == "input" else f'"{x}"'


def decimal_text(x: float) -> str:
    """A number without an exponent, as `float` reads it back."""
    text = f"{Decimal(repr(x)):f}"
    return text if "." in text else f"{text}.0"


def _item(item: Any) -> str:
    if isinstance(item, Expr):
        return expr_text(item)
    start, stop, step = ("" if x is None else expr_text(x) for x in item)
    return f"{start}:{stop}" + (f":{step}" if step else "")
