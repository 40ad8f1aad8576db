"""E0xx: text that is not a spec."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, Label, did_you_mean, listed, shown
from patterndsl.syntax.source import Span


class UnexpectedCharacter(Diagnostic):
    code = "E001"
    title = "a character that means nothing here"
    about = """
A spec is made of names, whole numbers, strings in double quotes, brackets and the operators `| & ^ ~ + -
* / // % ** < <= > >= == !=`. Anything else is read as a mistake. Comments start with `#`.
"""
    wrong = "causal & local(128) @ full"
    right = "causal & local(128)"
    characters: str

    def message(self) -> str:
        if not self.characters.isprintable():
            return f"unexpected character U+{ord(self.characters[0]):04X}"
        return f"unexpected {shown(self.characters)}"

    def help(self) -> str | None:
        known = {
            "\N{NO-BREAK SPACE}": "this is a no-break space; replace it by a plain one",
            "!": "`~` is the complement of a pattern; in a predicate it is `not`",
            "∪": "union is `|`",
            "∩": "intersection is `&`",
            "≤": "write `<=`",
            "≥": "write `>=`",
            "≠": "write `!=`",
            "−": "write the minus sign of the keyboard, `-`",
            "…": "ranges are written `a:b`",
            ".": "a dot stands between the name of an import and the name of a pattern in it",
            "$": "params are written as plain names",
        }
        return known.get(self.characters[:1])


class UnexpectedToken(Diagnostic):
    code = "E002"
    title = "something that cannot stand here"
    about = """
The parser met a name, number or sign where the grammar allows none of its kind. Often a comma or an
operator is missing before it, or the line before is not finished.
"""
    wrong = "causal local(128)"
    right = "causal & local(128)"
    found: str
    expected: tuple[str, ...] = ()
    advice: str | None = None

    def message(self) -> str:
        return f"unexpected {shown(self.found)}"

    def label(self) -> str:
        return f"expected {listed(self.expected, 'or')}" if self.expected else ""

    def help(self) -> str | None:
        return self.advice


class UnexpectedEnd(Diagnostic):
    code = "E003"
    title = "the text stops too early"
    about = "The spec, or one of its statements, ends where something must still follow, such as an operand."
    wrong = "causal &"
    right = "causal & local(128)"
    expected: tuple[str, ...] = ()
    statement: bool = False

    def message(self) -> str:
        return f"the {'statement' if self.statement else 'spec'} stops too early"

    def label(self) -> str:
        return (
            f"expected {listed(self.expected, 'or')} after this" if self.expected else "something must follow"
        )


class UnclosedBracket(Diagnostic):
    code = "E004"
    title = "a bracket that is not closed, or closed by one of another kind"
    about = """
Every `(`, `[` and `{` needs its own `)`, `]` or `}`. The error points at the opening bracket, and at the
place where the closing one was missed.
"""
    wrong = "causal & (local(128) | sinks(4)"
    right = "causal & (local(128) | sinks(4))"
    bracket: str
    missed_at: Span | None = None
    closed_by: str = ""

    def message(self) -> str:
        if self.closed_by:
            return f"{shown(self.bracket)} is closed by {shown(self.closed_by)}"
        return f"{shown(self.bracket)} is never closed"

    def label(self) -> str:
        return "opened here"

    def secondary(self) -> tuple[Label, ...]:
        if self.missed_at is None:
            return ()
        return (Label(self.missed_at, f"expected {shown(CLOSING[self.bracket])} before this"),)

    def help(self) -> str | None:
        return f"close it with {shown(CLOSING[self.bracket])}"


class UnmatchedBracket(Diagnostic):
    code = "E005"
    title = "a closing bracket that closes nothing"
    about = "A `)`, `]` or `}` stands where no bracket of its kind is open."
    wrong = "causal & local(128))"
    right = "causal & local(128)"
    bracket: str

    def message(self) -> str:
        return f"{shown(self.bracket)} closes nothing"

    def help(self) -> str | None:
        return "remove it, or open the bracket that it should close"


class BadString(Diagnostic):
    code = "E006"
    title = "a string without its double quotes"
    about = 'Strings stand between double quotes on one line. They name files and choices, such as "mean".'
    wrong = "hierarchical(4, reduce='max')"
    right = 'hierarchical(4, reduce="max")'
    quote: str

    def message(self) -> str:
        return "the string is not closed" if self.quote == '"' else "a string in single quotes"

    def help(self) -> str | None:
        return "close it with a double quote on the same line" if self.quote == '"' else "use double quotes"


class BadNumber(Diagnostic):
    code = "E007"
    title = "a number that is not whole"
    about = """
Numbers are whole and written in decimal digits: no exponents, suffixes or underscores, and a point only in
the few arguments that are shares, such as `mass=0.9`. Fractions are computed: `n / 2`, `ceil(n * 3 / 4)`.
"""
    wrong = "local(1e3)"
    right = "local(1000)"
    text: str

    def message(self) -> str:
        return f"{shown(self.text)} is not a whole number"

    def help(self) -> str | None:
        if self.text[-1] in "kKmM" and self.text[:-1].isdigit() and len(self.text) < 9:
            scale = 1024 if self.text[-1] in "kK" else 1024**2
            return f"write {int(self.text[:-1]) * scale} for {shown(self.text)}"
        if "_" in self.text:
            return "write the digits without underscores"
        if "." in self.text:
            return "write a fraction as a quotient, such as `ceil(n / 2)`"
        return "write the number in digits; a name must not begin with a digit"


class ReservedWord(Diagnostic):
    code = "E008"
    title = "a word of the language used as a name"
    about = """
The words of the grammar cannot be names: `import as param input pattern where heads layers every and or
not in true false`, and `_` alone.
"""
    wrong = "param every = 4\npattern main = causal"
    right = "param period = 4\npattern main = causal"
    word: str

    def message(self) -> str:
        return f"{shown(self.word)} is a word of the language and cannot be a name"

    def help(self) -> str | None:
        return f"choose another name, such as {shown(self.word.strip('_') + '_1')}"


class MixedFile(Diagnostic):
    code = "E009"
    title = "an expression beside statements"
    about = """
A file is either one expression or a list of statements (`import`, `param`, `input`, `pattern`). With
statements, the pattern to compile is the one that is named `main`.
"""
    wrong = "param w = 128\npattern near = local(w)\n\nx = causal & near"
    right = "param w = 128\npattern near = local(w)\n\npattern main = causal & near"
    name: str = ""
    instead: str = ""

    def message(self) -> str:
        return "expected a statement" if self.name else "an expression cannot stand beside statements"

    def label(self) -> str:
        return "" if self.name else "not a statement"

    def help(self) -> str | None:
        if not self.name:
            return "make it a statement: `pattern main = …`"
        close = did_you_mean(self.name, ("import", "param", "input", "pattern"))
        return close or f"definitions begin with a word that says what they define: {shown(self.instead)}"


class EmptySpec(Diagnostic):
    code = "E010"
    title = "a spec without a pattern"
    about = "The text holds nothing but white space and comments."
    wrong = "# to be written"
    right = "causal"

    def message(self) -> str:
        return "the spec is empty"

    def help(self) -> str | None:
        return "write a pattern, such as `causal & local(128)`"


class NotText(Diagnostic):
    code = "E011"
    title = "a file that is not UTF-8 text"
    about = """
Spec files are UTF-8. The file holds bytes that are not; it may be in another encoding, or no text at all.
"""
    wrong = ">>> patterndsl.parse(b'causal \\xff')"
    right = ">>> patterndsl.parse('causal')"
    file: str
    offset: int

    def message(self) -> str:
        return f"{self.file} is not UTF-8 text (byte {self.offset})"

    def help(self) -> str | None:
        return "save it as UTF-8"


class UnreadableFile(Diagnostic):
    code = "E012"
    title = "a spec file that cannot be read"
    about = "The file named on the command line, or given to `load`, does not exist or cannot be opened."
    wrong = "$ patterndsl check no_such_file.attn"
    right = "$ patterndsl check -e 'causal & local(128)'"
    file: str
    reason: str

    def message(self) -> str:
        return f"cannot read {self.file}: {self.reason}"


class SourceTooLarge(Diagnostic):
    code = "E020"
    title = "a spec that is too large"
    about = """
A spec is a few lines. Texts beyond 262,144 characters, or 50,000 words and signs, are refused before they
are parsed.
"""
    wrong = ">>> patterndsl.parse('full | ' * 200_000 + 'full')"
    right = ">>> patterndsl.parse('full')"
    file: str
    limit: int
    unit: str = "characters"

    def message(self) -> str:
        return f"{self.file} has more than {self.limit} {self.unit}"


class TooDeep(Diagnostic):
    code = "E021"
    title = "brackets or operators nested too deeply"
    about = """
Expressions nest to a depth of 100, far beyond what a person writes. Chains such as `a | b | c` count
once, however long they are.
"""
    wrong = ">>> patterndsl.parse('~' * 1000 + 'causal')"
    right = ">>> patterndsl.parse('~causal')"
    limit: int

    def message(self) -> str:
        return f"nested more than {self.limit} deep"

    def help(self) -> str | None:
        return "name parts of the expression with `pattern name = …`"


class NumberTooLarge(Diagnostic):
    code = "E022"
    title = "a number that is too large"
    about = """
Numbers in a spec are at most 10**15: lengths, sizes and positions are far below, and fit 64-bit integers.
"""
    wrong = "local(99999999999999999999)"
    right = "local(65536)"
    digits: int
    limit: int

    def message(self) -> str:
        return f"a number of {self.digits} digits is too large"

    def help(self) -> str | None:
        return f"numbers are at most {self.limit}"


class TooLong(Diagnostic):
    code = "E023"
    title = "a list or chain that is too long"
    about = """
Token lists, arguments, cases and operator chains have at most 10,000 members, files 1,000 statements.
Regular positions are shorter as a range, and arbitrary ones belong into a run-time input.
"""
    wrong = ">>> patterndsl.parse('columns([' + '0,' * 20_000 + '])')"
    right = ">>> patterndsl.parse('columns([0:40000:2])')"
    length: int
    limit: int

    def message(self) -> str:
        return f"{self.length} members; at most {self.limit} are allowed"

    def help(self) -> str | None:
        return "use a range such as `0:40000:2`, or a run-time input (`input name: token`)"


CLOSING = {"(": ")", "[": "]", "{": "}"}
