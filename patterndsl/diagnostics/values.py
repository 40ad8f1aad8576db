"""E3xx: values, most of them known only once n is."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, Label, shown
from patterndsl.syntax.source import Span


def at(n: int | None) -> str:
    return "" if n is None else f" at n = {n}"


class NotWhole(Diagnostic):
    code = "E301"
    title = "a number that does not come out whole"
    about = """
Arguments are whole numbers. `/`, `sqrt` and `log2` leave them, even where this n happens to give a whole
result; say how to round with `ceil(…)` or `floor(…)`, or divide with `//`.
"""
    wrong = "strided(sqrt(n))"
    right = "strided(ceil(sqrt(n)))"
    expression: str
    argument: str = ""

    def message(self) -> str:
        what = f"{shown(self.argument)} = {self.expression}" if self.argument else shown(self.expression)
        return f"{what} {'is not' if self._is_literal else 'need not be'} a whole number"

    @property
    def _is_literal(self) -> bool:
        return self.expression.replace(".", "").lstrip("-").isdigit()

    def help(self) -> str | None:
        return "give a whole number" if self._is_literal else f"round it: `ceil({self.expression})`"


class NotPositive(Diagnostic):
    code = "E302"
    title = "a size or count that is too small"
    about = """
Windows, strides, blocks, factors and shapes are sizes, and at least 1. Counts may be 0 but not negative.
"""
    wrong = "strided(0)"
    right = "strided(1)"
    argument: str
    value: int
    minimum: int = 1
    n: int | None = None

    def message(self) -> str:
        return f"{shown(self.argument)} must be at least {self.minimum}, but is {self.value}{at(self.n)}"

    def help(self) -> str | None:
        return f"`max({self.minimum}, …)` bounds an expression from below" if self.n is not None else None


class DivisionByZero(Diagnostic):
    code = "E303"
    title = "division by zero"
    about = "The right side of `/`, `//` or `%` is zero: always, or for the n and params given."
    wrong = "local(n // 0)"
    right = "local(n // 4)"
    operator: str
    n: int | None = None

    def message(self) -> str:
        return f"the right side of {shown(self.operator)} is zero{at(self.n)}"


class RangesOverlap(Diagnostic):
    code = "E304"
    title = "a head or layer in two cases"
    about = """
Each head (or layer) belongs to one case of `heads` (or `layers`). `_` stands for those that no other case
names. Among layers, `every` may meet a range: the case that is written first wins.
"""
    wrong = "heads { 0:4 => local(64); 3:8 => full }"
    right = "heads { 0:4 => local(64); 4:8 => full }"
    kind: str
    index: int | None = None
    first: Span | None = None

    def message(self) -> str:
        if self.index is None:
            return f"`_` stands twice in {shown(self.kind)}"
        return f"{self.kind[:-1]} {self.index} belongs to two cases of {shown(self.kind)}"

    def secondary(self) -> tuple[Label, ...]:
        return () if self.first is None else (Label(self.first, "also here"),)


class RangesGap(Diagnostic):
    code = "E305"
    title = "a head or layer in no case"
    about = """
The cases of `heads` and `layers` leave something out. A last case `_ => …` stands for all others.
"""
    wrong = "heads { 0:4 => local(64); 5:8 => full }"
    right = "heads { 0:4 => local(64); _ => full }"
    kind: str
    start: int
    stop: int | None = None

    def message(self) -> str:
        one = self.kind[:-1]
        if self.stop is None:
            return f"{self.kind} from {self.start} on belong to no case"
        if self.stop == self.start + 1:
            return f"{one} {self.start} belongs to no case"
        return f"{self.kind} {self.start} to {self.stop - 1} belong to no case"

    def help(self) -> str | None:
        return "add a case: `_ => full`"


class RangesMismatch(Diagnostic):
    code = "E306"
    title = "cases for another number of heads or layers"
    about = "The cases name heads (or a layer is asked for) that do not exist, or leave out some that do."
    wrong = ">>> patterndsl.compile('heads { 0:4 => full; 4:8 => causal }')  # and q with 6 heads"
    right = ">>> patterndsl.compile('heads { 0:4 => full; _ => causal }')"
    kind: str
    named: int
    count: int

    def message(self) -> str:
        return f"the cases of {shown(self.kind)} are for {self.named} {self.kind}, but there are {self.count}"

    def help(self) -> str | None:
        return "end with `_ => …`, which stands for all others"


class EmptySelector(Diagnostic):
    code = "E307"
    title = "a case that selects nothing"
    about = """
A range of heads or layers runs from `a` up to, not including, `b`, so `a` must be smaller; `every` needs
at least 1.
"""
    wrong = "heads { 4:4 => local(64); _ => full }"
    right = "heads { 4:5 => local(64); _ => full }"
    selector: str

    def message(self) -> str:
        return f"{shown(self.selector)} selects nothing"


class TokenOutOfRange(Diagnostic):
    code = "E308"
    title = "a token position beyond the sequence"
    about = """
Positions in token lists run from 0 to n − 1, and from −1 back to −n. Ranges are cut at the ends, as in
Python; single positions are not.
"""
    wrong = ">>> patterndsl.parse('columns([64])').mask(16)"
    right = ">>> patterndsl.parse('columns([15])').mask(16)"
    token: int
    n: int

    def message(self) -> str:
        return f"token {self.token} is out of range at n = {self.n}"

    def help(self) -> str | None:
        return (
            f"a range is cut at the end of the sequence: `{self.token}:{self.token + 1}`"
            if self.token >= 0
            else None
        )


class ValueTooLarge(Diagnostic):
    code = "E309"
    title = "a computed value that is too large"
    about = "Values that are computed from n, params and literals are at most 10**15 in size."
    wrong = "local(2 ** 200)"
    right = "local(2 ** 20)"
    expression: str
    limit: int
    n: int | None = None

    def message(self) -> str:
        return f"{shown(self.expression)} is beyond {self.limit}{at(self.n)}"


class NoValue(Diagnostic):
    code = "E310"
    title = "a function without a value there"
    about = """
The square root of a negative number, the logarithm of zero or less, and negative powers of zero do not
exist.
"""
    wrong = "local(ceil(log2(n - n)))"
    right = "local(ceil(log2(n)))"
    expression: str
    n: int | None = None

    def message(self) -> str:
        return f"{shown(self.expression)} has no value{at(self.n)}"


class BadValue(Diagnostic):
    code = "E311"
    title = "an argument that does not fit the others"
    about = "A pattern's arguments must agree with each other and with n, as its description says."
    wrong = "axial(shape=[8, 8], axis=3)"
    right = "axial(shape=[8, 8], axis=0)"
    pattern: str
    reason: str
    n: int | None = None

    def message(self) -> str:
        return f"{shown(self.pattern)}: {self.reason}{at(self.n)}"
