"""Parse and type-check a spec, and warn about what is hardly meant.

What depends on the number of tokens is checked at the lengths given by -n.
"""

from __future__ import annotations

from patterndsl.commands.options import (
    Arguments,
    Parser,
    add_json,
    add_lengths,
    add_spec,
    params_of,
    read_spec,
)
from patterndsl.commands.output import print_diagnostics, print_json, print_text


def add_arguments(parser: Parser) -> None:
    add_spec(parser)
    add_lengths(parser, (), "numbers of tokens at which to check, such as 4096,2**20")
    add_json(parser)


def main(arguments: Arguments) -> int:
    from patterndsl.diagnostics import Diagnostic, SpecError
    from patterndsl.lint import lint

    found: tuple[Diagnostic, ...]
    try:
        spec = read_spec(arguments)
        found = lint(spec, arguments.n, params_of(arguments))
    except SpecError as error:
        found = error.diagnostics
    wrong = any(d.severity == "error" for d in found)
    if arguments.json:
        print_json({"ok": not wrong, "diagnostics": [d.to_json() for d in found]})
        return int(wrong)
    if found:
        print_diagnostics(found)
    if not wrong:
        name = "<expression>" if arguments.file is None else arguments.file
        counts = [(sum(d.severity == s for d in found), s) for s in ("warning", "note")]
        told = [f", {count} {s}{'s' if count > 1 else ''}" for count, s in counts if count]
        print_text(f"{name}: ok{''.join(told)}")
    return int(wrong)
