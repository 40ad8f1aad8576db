"""Expressions on one line, with the parentheses that precedence requires."""

from __future__ import annotations

from patterndsl.syntax import ast

_LEVELS = (
    ("or",),
    ("and",),
    ("not",),
    ("<", "<=", ">", ">=", "==", "!=", "in", "not in"),
    ("|",),
    ("^",),
    ("&",),
    ("+", "-"),
    ("*", "/", "//", "%"),
    ("~",),
    ("**",),
)
LEVEL = {operator: level for level, operators in enumerate(_LEVELS, 1) for operator in operators}
NEGATIVE = LEVEL["~"]  # the prefix minus binds like the complement
ATOM = len(_LEVELS) + 1


def level_of(node: ast.Expression) -> int:
    if isinstance(node, ast.Chain):
        return LEVEL[node.operators[0]]
    if isinstance(node, ast.Unary):
        return NEGATIVE if node.operator == "-" else LEVEL[node.operator]
    return ATOM


def operand_level(node: ast.Chain, position: int) -> int:
    """How tightly an operand must bind to stand without parentheses."""
    if node.operators[0] == "**":
        return ATOM if position == 0 else NEGATIVE
    return level_of(node) + 1


def flat(node: ast.Node, least: int = 0) -> str:
    """A node on one line, in parentheses if it binds more loosely than ``least``."""
    match node:
        case ast.Chain():
            parts = [flat(operand, operand_level(node, i)) for i, operand in enumerate(node.operands)]
            text = parts[0]
            for sign, part in zip(node.operators, parts[1:], strict=True):
                text += f"{sign}{part}" if sign == "**" else f" {sign} {part}"
        case ast.Unary(operator, operand):
            text = operator + (" " if operator == "not" else "") + flat(operand, level_of(node))
        case ast.Name() | ast.Reference():
            text = node.text
        case ast.Number(value):
            text = str(value)
        case ast.Decimal(text):
            pass
        case ast.String(value):
            text = f'"{value}"'
        case ast.Bool(value):
            text = "true" if value else "false"
        case ast.Call(callee, arguments):
            text = f"{callee.text}({', '.join(map(flat, arguments))})"
        case ast.Argument(name, value):
            text = (f"{name.text}=" if name else "") + flat(value)
        case ast.Index(base, index):
            text = f"{base.text}[{flat(index)}]"
        case ast.List(items):
            text = f"[{', '.join(map(flat, items))}]"
        case ast.Slice(start, stop, step):
            text = ":".join(flat(part) if part else "" for part in (start, stop))
            text += f":{flat(step)}" if step else ""
        case ast.Where(query, key, condition):
            text = f"where({query.text}, {key.text}: {flat(condition)})"
        case ast.Block(kind, cases):
            text = f"{kind} {{ {'; '.join(map(flat, cases))} }}" if cases else f"{kind} {{}}"
        case ast.Case(selector, body):
            text = f"{flat(selector)} => {flat(body)}"
        case ast.Selector(kind, start, stop):
            first, second = (flat(part) if part else "" for part in (start, stop))
            text = {"every": f"every {first}", "one": first, "range": f"{first}:{second}", "rest": "_"}[kind]
        case ast.Parameter(name, default):
            text = name.text + (f" = {flat(default)}" if default else "")
        case ast.Import(target, alias):
            text = f"import {flat(target)}" + (f" as {alias.text}" if alias else "")
        case ast.Param(name, value):
            text = f"param {name.text} = {flat(value)}"
        case ast.Input(name, kind):
            text = f"input {name.text}: {kind.text}"
        case ast.Pattern(name, parameters, body):
            signature = "" if parameters is None else f"({', '.join(map(flat, parameters))})"
            text = f"pattern {name.text}{signature} = {flat(body)}"
        case _:
            raise TypeError(f"no text for {type(node).__name__}")
    binds = level_of(node) if isinstance(node, ast.Chain | ast.Unary) else ATOM
    return f"({text})" if binds < least else text
