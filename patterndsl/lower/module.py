"""A file and what it imports, to one `Module`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from patterndsl.diagnostics import (
    Diagnostics,
    DuplicateName,
    MissingArgument,
    NoMain,
    PatternRecursion,
    SpecTooLarge,
    UnknownInputKind,
    WrongType,
)
from patterndsl.ir.expr import Expr, var
from patterndsl.ir.nodes import INPUT_KINDS, Call, Function, Module, Node
from patterndsl.lower.calls import defaults
from patterndsl.lower.files import Loader, alias
from patterndsl.lower.numbers import whole
from patterndsl.lower.patterns import pattern
from patterndsl.lower.scope import Facts, Names, Scope, Signature, check_new_name
from patterndsl.syntax import ast, limits
from patterndsl.syntax.source import Span


def lower(file: ast.File, path: Path | None = None) -> Module:
    """The IR of a parsed file; ``path`` is where it was read, to which its imports are relative.

    Raises SpecError with every error found, in the imported files too.
    """
    found = Diagnostics()
    lowering = Lowering(found, Loader(found, [path.resolve()] if path is not None else []))
    if file.expression is not None:
        module = lowering.expression(file.expression)
    else:
        module = lowering.main(file)
    found.raise_if_errors()
    assert module is not None, "what cannot be lowered is reported"
    return module


class Lowering:
    """The state of one run: what is known of nodes and functions, over all files."""

    def __init__(self, found: Diagnostics, loader: Loader) -> None:
        self.found = found
        self.loader = loader
        self.facts = Facts()
        self.functions: dict[str, Signature] = {}
        self.params: dict[str, Expr] = {}
        self.inputs: dict[str, str] = {}

    def expression(self, node: ast.Expression) -> Module | None:
        names = Names("the expression", "", declares_inputs=False)
        main = pattern(Scope(names, self.facts, self.found), node)
        return None if main is None else Module(main, inputs=names.inputs, spans=self.facts.spans)

    def main(self, file: ast.File) -> Module | None:
        source = file.span.source
        names = self.file(file, source.name, "")
        signature = names.patterns.get("main")
        if signature is None:
            end = Span(source, len(source.text), len(source.text))
            candidates = tuple(name for name, s in names.patterns.items() if not s.arguments)
            self.found.add(NoMain(file=source.name, candidates=candidates, span=end))
            return None
        if signature.function is None:
            return None
        required = tuple(p.name.text for p in signature.arguments if p.default is None)
        if required:
            span = names.defined["main"]
            self.found.add(MissingArgument(pattern="main", names=required, span=span))
            return None
        main: Node = signature.function.body
        if signature.arguments:
            values = [signature.defaults[p.name.text] for p in signature.arguments]
            main = Call("main", tuple(value for value in values if value is not None))
        return Module(main, self.params, self.inputs, self.used(main), self.facts.spans)

    def used(self, main: Node) -> dict[str, Function]:
        """The functions that a pattern leads to."""
        used: dict[str, Function] = {}
        pending = [main]
        while pending:
            for name in called(pending.pop()):
                function = self.functions[name].function
                if name not in used and function is not None:
                    used[name] = function
                    pending.append(function.body)
        return used

    def file(self, file: ast.File, label: str, prefix: str) -> Names:
        """Everything that a file defines, lowered."""
        before = len(self.found)
        names = Names(label, prefix)
        params: dict[str, ast.Param] = {}
        patterns: dict[str, ast.Pattern] = {}
        for statement in file.statements:
            name = alias(statement, self.found) if isinstance(statement, ast.Import) else statement.name
            if name is None:
                continue
            imported = isinstance(statement, ast.Import)
            if not self.define(names, name, imported):
                if imported:
                    names.imports.setdefault(name.text, None)  # known, so that its uses are no second error
                continue
            match statement:
                case ast.Import():
                    names.imports[name.text] = self.imported(statement, f"{prefix}{name.text}")
                case ast.Param():
                    params[name.text] = statement
                case ast.Input(_, kind):
                    names.inputs[name.text] = self.input(name.text, kind)
                case ast.Pattern():
                    patterns[name.text] = statement
        self.lower_params(names, params)
        self.lower_patterns(names, patterns)
        names.wrong |= len(self.found) > before
        return names

    def input(self, name: str, kind: ast.Name) -> str:
        """The kind of an input, which all files that declare it share."""
        if kind.text not in INPUT_KINDS:
            self.found.add(UnknownInputKind(kind=kind.text, choices=INPUT_KINDS, span=kind.span))
            return self.inputs.setdefault(name, INPUT_KINDS[0])
        declared = self.inputs.setdefault(name, kind.text)
        if declared != kind.text:
            context = f"for `{name}`, as in another file"
            wrong = WrongType(
                expected=f"`{declared}`", found=f"`{kind.text}`", context=context, span=kind.span
            )
            self.found.add(wrong)
        return kind.text

    def define(self, names: Names, name: ast.Name, imported: bool) -> bool:
        if not check_new_name(self.found, name, imported):
            names.refused.add(name.text)
            return False
        if name.text in names.defined:
            self.found.add(DuplicateName(name=name.text, first=names.defined[name.text], span=name.span))
            return False
        names.defined[name.text] = name.span
        return True

    def imported(self, statement: ast.Import, prefix: str) -> Names | None:
        loaded = self.loader.load(statement)
        if loaded is None:
            return None
        path, file = loaded
        if file.expression is not None:  # the expression is the file's main
            body = ast.Pattern(ast.Name("main", span=file.expression.span), None, file.expression)
            file = ast.File((body,), None, span=file.span)
        self.loader.open_files.append(path)
        names = self.file(file, file.span.source.name, f"{prefix}.")
        self.loader.open_files.pop()
        return names

    def lower_params(self, names: Names, params: Mapping[str, ast.Param]) -> None:
        uses = {name: references(p.value, params) for name, p in params.items()}
        order = self.ordered(uses, {name: p.name.span for name, p in params.items()})
        for name in params:  # a wrong one is an unknown number, so that its users are checked all the same
            names.params[names.prefix + name] = var(f"${names.prefix}{name}")
        for name in order:
            scope = Scope(names, self.facts, self.found)
            value = whole(scope, params[name].value, name)
            if value is not None:
                key = names.prefix + name
                names.params[key] = self.params[key] = value
                self.facts.extents[f"${key}"] = scope.met.numbers

    def lower_patterns(self, names: Names, patterns: Mapping[str, ast.Pattern]) -> None:
        for name, p in patterns.items():
            signature = Signature(f"{names.prefix}{name}", p.parameters or (), 0)
            names.patterns[name] = self.functions[signature.name] = signature
        uses = {name: pattern_references(p, patterns) for name, p in patterns.items()}
        for name in self.ordered(uses, {name: p.name.span for name, p in patterns.items()}):
            signature = names.patterns[name]
            local = {p.name.text: var(f"%{p.name.text}") for p in signature.arguments}
            self.lower_pattern(Scope(names, self.facts, self.found, local), signature, patterns[name])

    def lower_pattern(self, scope: Scope, signature: Signature, statement: ast.Pattern) -> None:
        seen: dict[str, Span] = {}
        for p in signature.arguments:
            if not check_new_name(self.found, p.name):
                continue
            if p.name.text in seen:
                self.found.add(DuplicateName(name=p.name.text, first=seen[p.name.text], span=p.name.span))
            seen[p.name.text] = p.name.span
        before = len(self.found)
        defaults(scope, signature)
        body = pattern(scope, statement.body)
        if body is None or len(self.found) > before:
            return
        signature.size = sum(1 for _ in walk(statement.body)) + scope.met.expanded
        if signature.size > limits.MAX_EXPANDED:
            self.found.add(SpecTooLarge(limit=limits.MAX_EXPANDED, span=statement.name.span))
            return
        signature.holds_summaries = self.facts.holds_summaries[body]
        signature.mixes = self.facts.mixes[body]
        signature.depth = self.facts.depth[body]
        signature.numbers = scope.met.numbers
        signature.function = Function(tuple(p.name.text for p in signature.arguments), body)

    def ordered(self, uses: Mapping[str, list[str]], spans: Mapping[str, Span]) -> list[str]:
        """Names, each after those that it uses. What uses itself is reported, and left out with its users."""
        done: dict[str, bool] = {}
        for start in uses:
            path: list[str] = []
            pending: list[tuple[str, bool]] = [(start, False)]
            while pending:
                name, finished = pending.pop()
                if finished:
                    path.pop()
                    done.setdefault(name, True)
                elif name in path:
                    cycle = (*path[path.index(name) :], name)
                    self.found.add(PatternRecursion(cycle=cycle, span=spans[name]))
                    done.update(dict.fromkeys(cycle, False))
                elif name not in done:
                    path.append(name)
                    pending.append((name, True))
                    pending.extend((used, False) for used in uses[name])
        return [name for name, fine in done.items() if fine]


def called(node: Node) -> list[str]:
    """The functions that a pattern calls, once for each distinct call."""
    seen: dict[Node, None] = {}
    pending = [node]
    while pending:
        p = pending.pop()
        if p not in seen:
            seen[p] = None
            pending.extend(p.children)
    return [p.function for p in seen if isinstance(p, Call)]


def walk(node: ast.Node) -> Iterator[ast.Node]:
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(ast.children(current))


def references(
    node: ast.Node, defined: Mapping[str, object], bound: frozenset[str] = frozenset()
) -> list[str]:
    """Names among ``defined`` that an expression uses, leaving out those bound around it."""
    if isinstance(node, ast.Reference):
        name = node.parts[0].text
        return [name] if name in defined and name not in bound else []
    if isinstance(node, ast.Where):
        bound |= {node.query.text, node.key.text}
    return [name for child in ast.children(node) for name in references(child, defined, bound)]


def pattern_references(node: ast.Pattern, defined: Mapping[str, object]) -> list[str]:
    arguments = node.parameters or ()
    bound = frozenset(p.name.text for p in arguments)
    return [
        *references(node.body, defined, bound),
        *(name for p in arguments if p.default is not None for name in references(p.default, defined)),
    ]
