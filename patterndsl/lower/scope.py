"""What names mean where: the definitions of a file, and the arguments and positions around an expression."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from patterndsl.diagnostics import BuiltinName, Diagnostic, Diagnostics, SpecTooLarge, TooDeep, WrongType
from patterndsl.ir.expr import HEAD, NUM_HEADS, Expr, K, N, Q, var
from patterndsl.ir.nodes import Function, Node
from patterndsl.patterns import builtins
from patterndsl.syntax import ast, limits
from patterndsl.syntax.source import Span

VALUES: Mapping[str, Expr] = {"n": N, "h": HEAD, "num_heads": NUM_HEADS}
FUNCTIONS: Mapping[str, tuple[int, int | None]] = {  # least and largest number of arguments
    "sqrt": (1, 1),
    "log2": (1, 1),
    "ceil": (1, 1),
    "floor": (1, 1),
    "abs": (1, 1),
    "min": (1, None),
    "max": (1, None),
}
SPECIAL = ("mix", "auto")


def builtin_names() -> set[str]:
    """Every name that a file cannot give to something else."""
    return {*builtins(), *VALUES, *FUNCTIONS, *SPECIAL}


@dataclasses.dataclass(frozen=True)
class Extent:
    """How large a number is once its params and arguments are put in: levels of operations, and operations in
    all (shared ones counted each time, as those who read the IR may visit them so)."""

    depth: int = 0
    size: int = 1

    def over(self, arguments: Extent) -> Extent:
        """The extent of a number of this extent whose arguments are that large."""
        return Extent(self.depth + arguments.depth, self.size * arguments.size)

    def __or__(self, other: Extent) -> Extent:
        return Extent(max(self.depth, other.depth), max(self.size, other.size))


@dataclasses.dataclass
class Signature:
    """A pattern definition: its arguments with their defaults and, once lowered, facts about its body."""

    name: str  # in the module: `first`, `lf.longformer`
    arguments: tuple[ast.Parameter, ...]
    size: int  # nodes of the syntax tree, after inlining
    defaults: dict[str, Expr | None] = dataclasses.field(default_factory=dict)
    function: Function | None = None  # None: not lowered yet, or wrong
    holds_summaries: bool = False
    mixes: bool = False
    depth: int = 0
    numbers: Extent = Extent()


@dataclasses.dataclass
class Names:
    """What a file defines. ``prefix`` is how the module calls it: empty, or the imports that lead to it."""

    label: str
    prefix: str
    params: dict[str, Expr] = dataclasses.field(
        default_factory=dict
    )  # by module name, each after those it uses
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    patterns: dict[str, Signature] = dataclasses.field(default_factory=dict)
    imports: dict[str, Names | None] = dataclasses.field(default_factory=dict)  # None: could not be read
    defined: dict[str, Span] = dataclasses.field(default_factory=dict)
    refused: set[str] = dataclasses.field(default_factory=set)  # given though they are built in
    declares_inputs: bool = True  # False in a bare expression, which has no place for `input`
    wrong: bool = False  # whether errors were found in it


@dataclasses.dataclass
class Facts:
    """What is known of lowered nodes, shared by all files of a spec."""

    spans: dict[Node, Span] = dataclasses.field(default_factory=dict)
    holds_summaries: dict[Node, bool] = dataclasses.field(default_factory=dict)
    mixes: dict[Node, bool] = dataclasses.field(default_factory=dict)
    depth: dict[Node, int] = dataclasses.field(default_factory=dict)
    extents: dict[str, Extent] = dataclasses.field(default_factory=dict)  # of params, by variable


@dataclasses.dataclass
class Met:
    """What an expression led to: the nodes that its calls stand for, and its largest number."""

    expanded: int = 0
    numbers: Extent = Extent()


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where an expression stands. ``positions`` are the two index names of the `where` around it."""

    names: Names
    facts: Facts
    found: Diagnostics
    local: Mapping[str, Expr] = dataclasses.field(default_factory=dict)
    positions: tuple[str, ...] = ()
    met: Met = dataclasses.field(default_factory=lambda: Met())

    def error(self, diagnostic: Diagnostic) -> None:
        if diagnostic.span is None or diagnostic.span.text not in self.names.refused:  # else it follows
            self.found.add(diagnostic)

    def inside_where(self, query: str, key: str) -> Scope:
        local = {**self.local, query: Q, key: K}
        return dataclasses.replace(self, local=local, positions=(query, key))

    def value(self, name: str) -> Expr | None:
        """The number that a name stands for."""
        if name in self.local:
            return self.local[name]
        if self.names.prefix + name in self.names.params:
            return var(f"${self.names.prefix}{name}")
        return VALUES.get(name)

    def declared(self, name: str, kind: str) -> str:
        """The kind of an input. A bare expression, which declares none, has it of the ``kind`` that it is
        first used as."""
        return self.names.inputs.setdefault(name, kind)

    def value_names(self) -> tuple[str, ...]:
        own = len(self.names.prefix)
        return (*self.local, *(p[own:] for p in self.names.params), *VALUES)

    def pattern_names(self) -> tuple[str, ...]:
        return (*builtins(), "mix", *self.names.patterns, *self.names.imports)

    def kind(self, name: str) -> str | None:
        """What a name is, for messages; None if it is unknown."""
        if name in self.positions:
            return "a position"
        if self.value(name) is not None:
            return "a number"
        if name in self.names.patterns or name in builtins() or name == "mix":
            return "a pattern"
        if name in self.names.imports:
            return "an import"
        if name in self.names.inputs:
            return "an input"
        if name in FUNCTIONS:
            return "a function"
        return None


def of_kind(scope: Scope, name: str, kind: str, span: Span) -> bool:
    """Whether an input is of the kind that is read here; reports it where not."""
    declared = scope.declared(name, kind)
    if declared != kind:
        found = f"an input of kind `{declared}`"
        scope.error(WrongType(expected=f"an input of kind `{kind}`", found=found, span=span))
    return declared == kind


PATTERN_OPERATORS = ("|", "^", "&")
LOGICAL = ("and", "or")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=", "in", "not in")
ARITHMETIC = ("*", "/", "//", "%", "**")


def describe(scope: Scope, node: ast.Node) -> str:
    """What an expression looks like, for messages."""
    match node:
        case ast.Number() | ast.Index():
            return "a number"
        case ast.Decimal():
            return "a decimal number"
        case ast.String():
            return "a string"
        case ast.Bool():
            return "true or false"
        case ast.List():
            return "a list"
        case ast.Slice():
            return "a range"
        case ast.Where() | ast.Block():
            return "a pattern"
        case ast.Unary("not", operand) if describe(scope, operand) == "a pattern":
            return "a pattern"
        case ast.Unary(operator):
            return {"-": "a number", "~": "a pattern", "not": "a predicate"}[operator]
        case ast.Chain(operators, operands):
            if operators[0] in PATTERN_OPERATORS:
                return "a pattern"
            if operators[0] in LOGICAL:  # perhaps meant as a pattern
                kinds = {describe(scope, operand) for operand in operands}
                return "a pattern" if "a pattern" in kinds else "a predicate"
            if operators[0] in COMPARISONS:
                return "a predicate"
            return describe(scope, operands[0]) if operators[0] in ("+", "-") else "a number"
        case ast.Call(callee):
            kind = describe(scope, callee)
            return "a number" if kind == "a function" else kind
        case ast.Reference(parts):
            if len(parts) > 1:
                return "a pattern"
            known = scope.kind(parts[0].text) or "an unknown name"
            return {"a position": "a number", "an import": "a pattern"}.get(known, known)
    raise TypeError(f"no expression: {type(node).__name__}")


def check_new_name(found: Diagnostics, name: ast.Name, imported: bool = False) -> bool:
    """Whether a name may be given; reports it where it is built in."""
    if name.text in builtin_names():
        found.add(BuiltinName(name=name.text, imported=imported, span=name.span))
        return False
    return True


def within_limits(scope: Scope, extent: Extent, span: Span) -> bool:
    """Whether a number is small enough; notes it, and reports it where not."""
    scope.met.numbers |= extent
    if extent.depth > limits.MAX_DEPTH:
        too_deep(scope, span)
    elif extent.size > limits.MAX_EXPANDED:
        scope.error(SpecTooLarge(limit=limits.MAX_EXPANDED, span=span))
    else:
        return True
    return False


def too_deep(scope: Scope, span: Span) -> None:
    scope.error(TooDeep(limit=limits.MAX_DEPTH, span=span))
