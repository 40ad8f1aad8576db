"""E2xx: arguments, and what kind of thing an expression is."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, Label, did_you_mean, listed, shown
from patterndsl.syntax.source import Span


class UnknownArgument(Diagnostic):
    code = "E201"
    title = "the pattern takes no such argument"
    about = "The name before `=` is not one of the pattern's arguments. `patterndsl patterns` lists them."
    wrong = "strided(step=64)"
    right = "strided(s=64)"
    pattern: str
    name: str
    candidates: tuple[str, ...] = ()

    def message(self) -> str:
        return f"{shown(self.pattern)} takes no argument {shown(self.name)}"

    def help(self) -> str | None:
        if not self.candidates:
            return "it takes no arguments"
        close = did_you_mean(self.name, self.candidates)
        return close or f"it takes {listed(shown(c) for c in self.candidates)}"


class MissingArgument(Diagnostic):
    code = "E202"
    title = "an argument is missing"
    about = "Arguments without a default must be given, by position or by name."
    wrong = "causal & strided()"
    right = "causal & strided(64)"
    pattern: str
    names: tuple[str, ...]
    signature: str = ""

    def message(self) -> str:
        return f"{shown(self.pattern)} needs {listed(shown(n) for n in self.names)}"

    def help(self) -> str | None:
        if self.pattern == "main":
            return "nobody calls `main` with arguments: give them defaults, or make them params"
        return f"it is called as {shown(self.signature)}" if self.signature else None


class DuplicateArgument(Diagnostic):
    code = "E203"
    title = "an argument given twice"
    about = "Each argument is given once, by position or by name."
    wrong = "strided(64, s=32)"
    right = "strided(64)"
    name: str
    first: Span | None = None

    def message(self) -> str:
        return f"the argument {shown(self.name)} is given twice"

    def secondary(self) -> tuple[Label, ...]:
        return () if self.first is None else (Label(self.first, "first given here"),)


class TooManyArguments(Diagnostic):
    code = "E204"
    title = "more arguments than the pattern or function takes"
    about = "A pattern or function is given more arguments by position than it has."
    wrong = "strided(64, 8, 2)"
    right = "strided(64)"
    name: str
    given: int
    limit: int
    signature: str = ""

    def message(self) -> str:
        takes = "no arguments" if self.limit == 0 else f"at most {self.limit} argument{'s'[: self.limit > 1]}"
        given = "1 is" if self.given == 1 else f"{self.given} are"
        return f"{shown(self.name)} takes {takes}, but {given} given"

    def help(self) -> str | None:
        how = "it is called as" if self.limit else "write"
        return f"{how} {shown(self.signature)}" if self.signature else None


class PositionalAfterKeyword(Diagnostic):
    code = "E205"
    title = "an argument without a name after one with a name"
    about = "Arguments that are given by position come before those that are given by name."
    wrong = "fixed(block=64, 8)"
    right = "fixed(64, summary=8)"

    def message(self) -> str:
        return "an argument without a name after one with a name"

    def help(self) -> str | None:
        return "put it first, or give its name too"


class WrongType(Diagnostic):
    code = "E206"
    title = "one kind of thing where another is needed"
    about = """
Expressions are patterns, numbers, predicates (true or false for a pair of positions), lists or strings.
Arguments and operators each want one kind.
"""
    wrong = "causal & 128"
    right = "causal & local(128)"
    expected: str
    found: str
    context: str = ""
    choices: tuple[str, ...] = ()

    def message(self) -> str:
        where = f" {self.context}" if self.context else ""
        return f"expected {self.expected}{where}, found {self.found}"

    def label(self) -> str:
        return f"this is {self.found}"

    def help(self) -> str | None:
        if self.choices:
            quoted = (f'"{choice}"' for choice in self.choices)
            return f"it is {listed(quoted, 'or')}, in double quotes"
        known = {
            ("a pattern", "a predicate"): "wrap it as a pattern: `where(q, k: …)`",
            (
                "a pattern",
                "a number",
            ): "a number alone is no pattern: `local(128)` keeps a window of that size",
            ("a list", "a number"): "put it into brackets: `[0]`",
            ("a number", "a list"): "give one number, without brackets",
            ("a number", "an input"): "an input is an array: in `where(q, k: …)`, index it, as in `doc[k]`",
            ("a predicate", "a number"): "compare it with something, as in `(q - k) % 2 == 0`",
        }
        return known.get((self.expected, self.found))


class WordOperator(Diagnostic):
    code = "E207"
    title = "`and`, `or`, `not` on patterns"
    about = """
`and`, `or` and `not` belong to predicates, inside `where(q, k: …)`. Patterns are sets of pairs, and
combine with `&`, `|` and `~`, which also bind differently.
"""
    wrong = "causal and local(128)"
    right = "causal & local(128)"
    operator: str

    def message(self) -> str:
        return f"{shown(self.operator)} cannot combine patterns"

    def help(self) -> str | None:
        return f"use {shown({'and': '&', 'or': '|', 'not': '~'}[self.operator])}"


class SymbolOperator(Diagnostic):
    code = "E208"
    title = "`&`, `|`, `~` in a predicate, or an operator on things that it does not know"
    about = """
`& | ^ ~` combine patterns only. Conditions inside `where(q, k: …)` combine with `and`, `or` and `not`, as
in Python.
"""
    wrong = "where(q, k: (k <= q) & (k > 4))"
    right = "where(q, k: k <= q and k > 4)"
    operator: str
    operands: str

    def message(self) -> str:
        return f"{shown(self.operator)} does not work on {self.operands}"

    def help(self) -> str | None:
        if self.operands == "a pattern alone":
            return "`~a` is the complement of a pattern, `a - b` the difference of two"
        if self.operands == "numbers" and self.operator in ("&", "|"):
            joined = shown({"&": "and", "|": "or"}[self.operator])
            return f"numbers have `+ - * // %`; two conditions are joined by {joined}"
        if self.operands == "patterns":
            return "patterns combine with `|`, `^`, `&`, `+`, `-` and `~`"
        word = {"&": "and", "|": "or", "~": "not", "^": "!="}.get(self.operator)
        return f"in a predicate, write {shown(word)}" if word else None


class SummariesUnder(Diagnostic):
    code = "E209"
    title = "an operation that summaries do not have"
    about = """
`hierarchical`, `tree` and other patterns with summaries attend to means of many tokens. Such a pattern
has no complement, symmetric difference, difference or transpose: there is no telling which tokens would
remain.
"""
    wrong = "~hierarchical(4)"
    right = "causal & hierarchical(4)"
    operator: str
    pattern: str = ""  # where there is no text to point at

    def message(self) -> str:
        which = f": {shown(self.pattern)}" if self.pattern else ""
        return f"{shown(self.operator)} cannot be applied to a pattern with summaries{which}"

    def label(self) -> str:
        return "this pattern holds summaries"

    def help(self) -> str | None:
        return "apply it to a pattern of tokens, and combine the result with `|` or `&`"


class BothSummaries(Diagnostic):
    code = "E210"
    title = "the intersection of two patterns with summaries"
    about = """
`&` between a pattern of tokens and one with summaries keeps the summaries whose every token is kept.
Between two patterns with summaries of their own it has no meaning.
"""
    wrong = "hierarchical(4) & tree(2)"
    right = "hierarchical(4) & causal"
    first: Span | None = None

    def message(self) -> str:
        return "`&` of two patterns that both hold summaries"

    def label(self) -> str:
        return "this holds summaries"

    def secondary(self) -> tuple[Label, ...]:
        return () if self.first is None else (Label(self.first, "and so does this"),)

    def help(self) -> str | None:
        return "restrict one of them by a pattern of tokens"


class NotCallable(Diagnostic):
    code = "E211"
    title = "something called that takes no arguments"
    about = """
Only patterns, and in number expressions the functions such as `ceil`, are called with arguments.
"""
    wrong = "param w = 4\npattern main = local(w(2))"
    right = "param w = 4\npattern main = local(w * 2)"
    name: str
    kind: str

    def message(self) -> str:
        return f"{shown(self.name)} is {self.kind} and cannot be called"


class NotAChoice(Diagnostic):
    code = "E212"
    title = "a string that is not one of the choices"
    about = "Arguments that are strings choose between a few named ways."
    wrong = 'hierarchical(4, reduce="average")'
    right = 'hierarchical(4, reduce="mean")'
    argument: str
    value: str
    choices: tuple[str, ...]

    def message(self) -> str:
        return f"{shown(self.argument)} cannot be {shown(self.value)}"

    def help(self) -> str | None:
        choices = listed((f'"{c}"' for c in self.choices), "or")
        return did_you_mean(self.value, self.choices) or f"it is {choices}"


class UnknownInputKind(Diagnostic):
    code = "E213"
    title = "an input of unknown kind"
    about = """
`input doc: token` declares an array with one integer for each token, passed as `attention(q, k, v,
doc=ids)`; `input mu: centroids` the vectors of `cluster(k, size, centroids=mu)`.
"""
    wrong = "input doc: tokens\npattern main = same(doc)"
    right = "input doc: token\npattern main = same(doc)"
    kind: str
    choices: tuple[str, ...]

    def message(self) -> str:
        return f"there are no inputs of kind {shown(self.kind)}"

    def help(self) -> str | None:
        close = did_you_mean(self.kind, self.choices)
        return close or f"an input is of kind {listed((shown(c) for c in self.choices), 'or')}"


class BadIndex(Diagnostic):
    code = "E214"
    title = "an index that is not a position"
    about = """
Only inputs are indexed, and only by the two index names of the `where` around them: `doc[q]`, `doc[k]`.
"""
    wrong = "input doc: token\npattern main = where(q, k: doc[q] == doc[q + 1])"
    right = "input doc: token\npattern main = where(q, k: doc[q] == doc[k])"
    name: str
    is_input: bool
    indices: tuple[str, ...] = ()

    def message(self) -> str:
        if not self.is_input:
            return f"{shown(self.name)} is no input and cannot be indexed"
        return f"{shown(self.name)} is indexed by something else than a position"

    def help(self) -> str | None:
        if not self.is_input:
            return f"declare it: `input {self.name[:40]}: token`"
        if not self.indices:
            return "an input is indexed inside `where(q, k: …)`"
        return f"write {listed((shown(f'{self.name}[{i}]') for i in self.indices), 'or')}"


class NotInPredicates(Diagnostic):
    code = "E215"
    title = "an operation that predicates do not have"
    about = """
Predicates are evaluated for every pair of positions in whole numbers: `+ - * // %`, `abs`, `min`, `max`.
Division, roots and powers belong to the arguments of patterns, where they are computed once.
"""
    wrong = "where(q, k: k < q / 2)"
    right = "where(q, k: k < q // 2)"
    operation: str

    def message(self) -> str:
        return f"{shown(self.operation)} cannot be used on positions"

    def help(self) -> str | None:
        if self.operation == "/":
            return "`//` divides and rounds down"
        return "compute it outside, and pass it as an argument of a pattern"


class ChoiceUnder(Diagnostic):
    code = "E217"
    title = "a choice from the data that is transformed or chosen among"
    about = """
`select`, `lsh` and the like choose for the queries of a call from its q and k. `transpose`, `shift` and
`blocks` ask for other queries than these, and the choice of `select` among the blocks of another choice would
have to be made after it: neither has a meaning.
"""
    wrong = "select(4, 64, among=causal & lsh(16))"
    right = "select(4, 64, among=causal) & lsh(16)"
    operator: str
    pattern: str = ""

    def message(self) -> str:
        which = shown(self.pattern) if self.pattern else "a pattern that is chosen from the data"
        return f"{shown(self.operator)} cannot be applied to {which}"

    def help(self) -> str | None:
        return "what it is applied to is fixed by positions and inputs; combine the results with `&` and `|`"


MIX_PLACES = "write it outermost; only `&`, `heads` and `layers` may stand around it"


class MisplacedSyntax(Diagnostic):
    code = "E216"
    title = "something that has a meaning only elsewhere"
    about = """
Ranges `a:b` stand in lists; `where`, `heads` and `layers` are patterns and stand where patterns do; the
right side of `in` is a list.
"""
    wrong = "where(q, k: k in 4)"
    right = "where(q, k: k in [4])"
    what: str
    advice: str

    def message(self) -> str:
        return self.what

    def help(self) -> str | None:
        return self.advice
