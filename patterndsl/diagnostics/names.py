"""E1xx: names and imports."""

from __future__ import annotations

from patterndsl.diagnostics.base import Diagnostic, Label, did_you_mean, listed, shown
from patterndsl.syntax.source import Span


class UnknownPattern(Diagnostic):
    code = "E101"
    title = "no pattern has this name"
    about = """
The name is neither built in nor defined in the file. `patterndsl patterns` lists what is built in; the
patterns of an import are reached through its name, as in `lf.longformer`.
"""
    wrong = "causal & locl(128)"
    right = "causal & local(128)"
    name: str
    candidates: tuple[str, ...] = ()
    library: tuple[str, ...] = ()

    def message(self) -> str:
        return f"unknown pattern {shown(self.name)}"

    def help(self) -> str | None:
        if self.name in self.library:
            return f"it is one of the published patterns: begin the file with `import {self.name}`"
        return did_you_mean(self.name, self.candidates) or "`patterndsl patterns` lists the built-in patterns"


class UnknownName(Diagnostic):
    code = "E102"
    title = "no value has this name"
    about = """
Number expressions know `n`, `h` (the query head), `num_heads`, the params and the arguments of the pattern
they stand in; predicates also the two index names of their `where`, `h` (the query head), `num_heads` and
the inputs.
"""
    wrong = "local(windw)"
    right = "param window = 128\npattern main = local(window)"
    name: str
    candidates: tuple[str, ...] = ()
    what: str = "name"

    def message(self) -> str:
        return f"unknown {self.what} {shown(self.name)}"

    def help(self) -> str | None:
        name = self.name[:40]
        if self.what == "name" and name in ("True", "False"):
            return f"write {shown(name.lower())}"
        if self.what == "name" and name in ("q", "k"):
            return "positions have names only inside a predicate: `where(q, k: …)`"
        define = {
            "import": f'import it: `import {name}`, or `import "file.attn" as {name}`',
            "input": f"declare it: `input {name}: token`",
        }
        close = did_you_mean(self.name, self.candidates)
        return close or define.get(self.what, f"define it: `param {name} = …`")


class UnknownMember(Diagnostic):
    code = "E103"
    title = "the imported file defines no such pattern"
    about = """
A name after the dot must be a pattern that the imported file defines. Its params are not reached so.
"""
    wrong = "import longformer\npattern main = longformer.window"
    right = "import longformer\npattern main = longformer"
    module: str
    name: str
    candidates: tuple[str, ...] = ()

    def message(self) -> str:
        return f"{shown(self.module)} has no pattern {shown(self.name)}"

    def help(self) -> str | None:
        close = did_you_mean(self.name, self.candidates)
        if close:
            return close
        return f"it has {listed(shown(c) for c in self.candidates[:8])}" if self.candidates else None


class DuplicateName(Diagnostic):
    code = "E104"
    title = "a name defined twice"
    about = "Params, inputs, patterns and imports of a file share one set of names, and each is defined once."
    wrong = "param w = 128\nparam w = 256\npattern main = local(w)"
    right = "param w = 256\npattern main = local(w)"
    name: str
    first: Span | None = None

    def message(self) -> str:
        return f"{shown(self.name)} is defined twice"

    def label(self) -> str:
        return "defined again"

    def secondary(self) -> tuple[Label, ...]:
        return () if self.first is None else (Label(self.first, "first defined here"),)

    def help(self) -> str | None:
        return "rename one of them"


class BuiltinName(Diagnostic):
    code = "E105"
    title = "a built-in name cannot be redefined"
    about = """
The names of built-in patterns, functions (`ceil`, `sqrt`, …) and values (`n`, `h`, `num_heads`) mean the
same in every file, and cannot be given to a param, input, pattern, import or argument.
"""
    wrong = "pattern local = causal\npattern main = causal"
    right = "pattern near = causal\npattern main = near"
    name: str
    imported: bool = False

    def message(self) -> str:
        return f"{shown(self.name)} is built in and cannot be redefined"

    def help(self) -> str | None:
        if self.imported:
            return f"import it under another name: `import {self.name} as my_{self.name}`"
        return f"choose another name, such as {shown('my_' + self.name)}"


class PatternRecursion(Diagnostic):
    code = "E106"
    title = "a pattern defined by itself"
    about = """
Patterns are inlined where they are used, so none may lead back to itself, directly or through others.
"""
    wrong = "pattern a = causal & b\npattern b = a | local(4)\npattern main = a"
    right = "pattern b = local(4)\npattern a = causal & b\npattern main = a"
    cycle: tuple[str, ...]

    def message(self) -> str:
        return f"{shown(self.cycle[0])} is defined by itself"

    def notes(self) -> tuple[str, ...]:
        return (f"it leads back to itself: {' → '.join(self.cycle)}",) if len(self.cycle) > 2 else ()


class ImportCycle(Diagnostic):
    code = "E107"
    title = "files that import each other"
    about = "An imported file must not lead back to the file that imports it."
    wrong = '$ patterndsl check a.attn  # holds: import "b.attn", and b.attn: import "a.attn"'
    right = "$ patterndsl check a.attn  # and b.attn imports nothing"
    cycle: tuple[str, ...]

    def message(self) -> str:
        return "this import leads back to the file that it stands in"

    def notes(self) -> tuple[str, ...]:
        return (" → ".join(self.cycle),)

    def help(self) -> str | None:
        return "move what both need into a third file"


class MissingImport(Diagnostic):
    code = "E108"
    title = "an imported file that cannot be read"
    about = """
`import "x.attn"` is looked up beside the file that it stands in; `import longformer` in the library that
is shipped with patterndsl. Imported files end in `.attn`.
"""
    wrong = 'import "no_such_file.attn" as x\npattern main = x'
    right = "import longformer as x\npattern main = x"
    file: str
    reason: str
    candidates: tuple[str, ...] = ()

    def message(self) -> str:
        return f"cannot import {shown(self.file)}: {self.reason}"

    def help(self) -> str | None:
        return did_you_mean(self.file, self.candidates)


class NoMain(Diagnostic):
    code = "E109"
    title = "no pattern is named main"
    about = """
The pattern named `main` is what is compiled, and what an import's name alone stands for. A file of
helpers needs none, as long as only its members are used.
"""
    wrong = "pattern near = local(4)"
    right = "pattern near = local(4)\npattern main = causal & near"
    file: str
    candidates: tuple[str, ...] = ()
    imported_as: str = ""

    def message(self) -> str:
        if self.imported_as:
            return f"{shown(self.imported_as)} has no pattern named `main`, so its name alone is no pattern"
        return f"{self.file} has no pattern named `main`"

    def help(self) -> str | None:
        if not self.candidates:
            return "add one: `pattern main = …`"
        if self.imported_as:
            members = (shown(f"{self.imported_as}.{c}") for c in self.candidates[:5])
            return f"name the pattern: {listed(members, 'or')}"
        return f"add one: `pattern main = {self.candidates[-1]}`"


class UnknownParam(Diagnostic):
    code = "E110"
    title = "a param that the spec does not have"
    about = "`-p name=value` and `params={…}` override what the spec declares with `param`, and nothing else."
    wrong = ">>> patterndsl.compile('param w = 4\\npattern main = local(w)', params={'window': 8})"
    right = ">>> patterndsl.compile('param w = 4\\npattern main = local(w)', params={'w': 8})"
    name: str
    candidates: tuple[str, ...] = ()

    def message(self) -> str:
        return f"the spec has no param {shown(self.name)}"

    def help(self) -> str | None:
        if not self.candidates:
            return f"declare it in the spec: `param {self.name[:40]} = …`"
        return (
            did_you_mean(self.name, self.candidates)
            or f"it has {listed(shown(c) for c in self.candidates[:8])}"
        )


class ImportsTooDeep(Diagnostic):
    code = "E111"
    title = "too many files, or imports nested too deeply"
    about = """
Imports lead through at most 16 files, one importing the next, and a spec reads at most 100 files.
"""
    wrong = "$ patterndsl check 1.attn  # imports 2.attn, which imports 3.attn, and so on up to 20.attn"
    right = "$ patterndsl check 1.attn  # imports what it needs itself"
    limit: int
    nested: bool = True

    def message(self) -> str:
        how = "nested more than {} deep" if self.nested else "of more than {} files"
        return f"imports {how.format(self.limit)}"


class NoImportName(Diagnostic):
    code = "E112"
    title = "an import whose file name is no name"
    about = "Without `as`, an import goes by the name of its file, which must then be a name of the language."
    wrong = 'import "big-bird.attn"\npattern main = causal'
    right = "import bigbird as big_bird\npattern main = big_bird"
    file: str

    def message(self) -> str:
        return f"{shown(self.file)} does not say under which name it is imported"

    def help(self) -> str | None:
        return f'name it: `import "{self.file[:40]}" as name`'
