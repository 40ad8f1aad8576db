"""The verifier: what every module holds to, before and after every pass.

What a reader of the spec can have caused is raised as `SpecError` at its span; what only a faulty pass (or a
tree built by hand) can is `InvalidIR`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from patterndsl.diagnostics import BothSummaries, Diagnostics, MisplacedSyntax, SummariesUnder
from patterndsl.ir.expr import BOOL_OPS, COMPARE_OPS, INT_OPS, OPS, Expr, bound
from patterndsl.ir.nodes import (
    Call,
    Cases,
    Complement,
    Difference,
    Intersection,
    Layers,
    Mix,
    Module,
    Node,
    Pattern,
    Sum,
    SymmetricDifference,
    Tokens,
    Union,
    Where,
    in_two,
)
from patterndsl.ir.normal import postorder, walk
from patterndsl.patterns.base import Kind, parameters


class InvalidIR(Exception):
    """The IR breaks a rule of its own: a fault of the pass that made it."""

    def __init__(self, rule: str, offender: object) -> None:
        super().__init__(f"{rule}: {offender}")


def verify(module: Module) -> None:
    """Raise SpecError or `InvalidIR` where the module is not well formed."""
    found = Diagnostics()
    numbers = {"n"} | {f"${name}" for name in module.params}
    for name, e in module.params.items():
        _numbers_only(e, numbers, f"param {name}")
    for function in module.functions.values():
        arguments = {f"%{a}" for a in function.arguments}
        _Tree(module, numbers | arguments, found).check(function.body)
    _Tree(module, numbers, found).check(module.main)
    found.raise_if_errors()


@dataclasses.dataclass
class _Tree:
    module: Module
    numbers: set[str]
    found: Diagnostics
    checked: set[Expr] = dataclasses.field(default_factory=set)

    def check(self, root: Node) -> None:
        nodes = walk(root)
        for p in nodes:
            self.node(p)
        if not self.found.errors:
            self.nesting(nodes)

    def node(self, p: Node) -> None:
        match p:
            case Where(keep):
                names = self.numbers | {"q", "k", "h", "num_heads"}
                if keep.sort != "bool":
                    raise InvalidIR("a predicate is true or false", keep)
                self.expression(keep, names)
            case Union(members) | Intersection(members) | SymmetricDifference(members) | Sum(members):
                _patterns(members, p)
            case Mix(branches):
                _patterns(branches, p)
            case Difference() | Complement():
                _patterns(p.children, p)
            case Cases():
                _cases(p)
            case Call(name, arguments):
                function = self.module.functions.get(name)
                if function is None or len(function.arguments) != len(arguments):
                    raise InvalidIR("a call names a function of the module, with its arguments", p)
                for e in arguments:
                    self.number(e)
            case Pattern():
                self.builtin(p)
            case _:
                raise InvalidIR("not a pattern", repr(p))

    def builtin(self, p: Pattern) -> None:
        for parameter in parameters(type(p)):
            value = getattr(p, parameter.name)
            if value is None and parameter.optional:
                continue
            if not _fits(parameter.kind, value):
                raise InvalidIR(f"`{parameter.name}` of {p.name} takes a {parameter.kind.sort}", repr(value))
            if parameter.kind.sort == "input":
                self.input(value, parameter.kind.holds)
            for e in _expressions(value):
                self.number(e)

    def number(self, e: Expr) -> None:
        if e.sort == "bool":
            raise InvalidIR("an argument is a number", e)
        self.expression(e, self.numbers)
        if e.inputs():
            raise InvalidIR("an argument reads no run-time input", e)

    def expression(self, e: Expr, names: set[str]) -> None:
        for x in e.walk():
            if x in self.checked:
                continue
            self.checked.add(x)
            _sorts(x)
            if x.op == "input":
                self.input(str(x.value), "token")
        unknown = e.names() - names
        if unknown:
            raise InvalidIR(f"`{min(unknown)}` has no value here", e)

    def input(self, name: str, kind: str) -> None:
        if self.module.inputs.get(name) != kind:
            raise InvalidIR(f"an input is declared by its module, of kind {kind}", name)

    def nesting(self, nodes: list[Node]) -> None:
        """Summaries and mixtures only where an operator has a meaning for them."""
        holders, mixes = self.holders(nodes), _mixes(nodes)
        for p in nodes:
            for child in p.children:
                operator = _refuses_summaries(p, child)
                if operator and child in holders:
                    self.found.add(SummariesUnder(operator=operator, span=self.span(child, p)))
                if child in mixes and not isinstance(p, (Mix, Cases, Intersection)):
                    self.misplaced(p)
            if isinstance(p, Intersection):
                both = [m for m in p.members if m in holders]
                if len(both) > 1:
                    first = self.module.spans.get(both[0])
                    self.found.add(BothSummaries(first=first, span=self.span(both[1], p)))
                if sum(m in mixes for m in p.members) > 1:
                    self.misplaced(p)

    def holders(self, nodes: list[Node]) -> set[Node]:
        """The patterns that can keep summaries; a call can where its function can."""
        functions = {name: walk(f.body) for name, f in self.module.functions.items()}
        calling = set[str]()
        while True:
            more = {name for name, body in functions.items() if any(_own_summaries(p, calling) for p in body)}
            if more == calling:
                break
            calling = more
        held = set[Node]()
        for p in postorder(*nodes):
            if _own_summaries(p, calling) or any(c in held for c in p.children):
                held.add(p)
        return held

    def misplaced(self, p: Node) -> None:
        advice = "`mix` stands outermost, or under `&` with patterns that are no mixture"
        span = self.module.spans.get(p)
        self.found.add(MisplacedSyntax(what="`mix` inside another operation", advice=advice, span=span))

    def span(self, p: Node, parent: Node) -> Any:
        spans: Mapping[Node, Any] = self.module.spans
        return spans.get(p, spans.get(parent))


def _own_summaries(p: Node, calling: set[str]) -> bool:
    if isinstance(p, Call):
        return p.function in calling
    return isinstance(p, Pattern) and type(p).summaries is not Pattern.summaries


def _refuses_summaries(p: Node, child: Node) -> str:
    """The operator that has no meaning for summaries in this operand."""
    match p:
        case Complement():
            return "~"
        case SymmetricDifference():
            return "^"
        case Difference() if child is p.right:
            return "-"
        case Pattern():
            return f"{p.name}()"
    return ""


def _mixes(nodes: list[Node]) -> set[Node]:
    mixed = set[Node]()
    for p in postorder(*nodes):
        if isinstance(p, Mix) or any(c in mixed for c in p.children):
            mixed.add(p)
    return mixed


def _numbers_only(e: Expr, names: set[str], owner: str) -> None:
    if e.sort == "bool" or e.names() - names:
        raise InvalidIR(f"{owner} is a number over n and params", e)


def _patterns(members: tuple[Node, ...], p: Node) -> None:
    if not members:
        raise InvalidIR("an operator has members", type(p).__name__)
    for m in members:
        if not isinstance(m, Node):
            raise InvalidIR(f"a member of {type(p).__name__} is a pattern", repr(m))


def _cases(p: Cases) -> None:
    if len(p.ranges) != len(p.patterns):
        raise InvalidIR("each case has a range and a pattern", type(p).__name__)
    if not p.children:
        raise InvalidIR("there is at least one case", type(p).__name__)
    for r in p.ranges:
        if r.start < 0 or r.step < 1 or (r.stop is not None and r.stop <= r.start):
            raise InvalidIR("a range selects something", p)
    if isinstance(p, Layers):
        return  # the first case that fits wins
    if in_two(p.ranges) is not None:
        raise InvalidIR("a head has one case", p)


def _fits(kind: Kind, value: object) -> bool:
    match kind.sort:
        case "number":
            return isinstance(value, Expr)
        case "decimal":
            return isinstance(value, float)
        case "tokens":
            return isinstance(value, Tokens)
        case "shape":
            return isinstance(value, bool) or (
                isinstance(value, tuple) and bool(value) and all(isinstance(x, Expr) for x in value)
            )
        case "pattern":
            return isinstance(value, Node)
        case "string":
            return (kind.function and callable(value)) or value in kind.choices
        case "flag":
            return isinstance(value, bool)
        case "input":
            return isinstance(value, str)


def _expressions(value: object) -> list[Expr]:
    if isinstance(value, Expr):
        return [value]
    if isinstance(value, Tokens):
        return _expressions(value.items)
    return [e for x in value for e in _expressions(x)] if isinstance(value, tuple) else []


_OPERANDS = {
    "not": 1,
    "neg": 1,
    "abs": 1,
    "popcount": 1,
    "ceil": 1,
    "floor": 1,
    "sqrt": 1,
    "log2": 1,
    "if": 3,
}


def _sorts(x: Expr) -> None:
    """Each operation has operands of the sorts that it takes."""
    sorts = [a.sort for a in x.args]
    fine = x.op in OPS
    if x.op in COMPARE_OPS | INT_OPS | {"div", "pow", "sqrt", "log2", "ceil", "floor", "input"}:
        fine &= "bool" not in sorts
    elif x.op in ("and", "or", "not"):
        fine &= set(sorts) <= {"bool"}
    elif x.op in ("forall", "exists"):
        fine &= "bool" not in sorts[:2] and sorts[2:] == ["bool"] and bound(x)[1] >= 0
    elif x.op == "if":
        fine &= sorts[:1] == ["bool"] and (sorts[1] == "bool") == (sorts[2] == "bool")
    if x.op not in BOOL_OPS | {"const", "bool", "var", "input"}:
        fine &= len(sorts) == _OPERANDS.get(x.op, 2)
    if not fine:
        raise InvalidIR(f"an operand of `{x.op}` has the wrong sort", x)
