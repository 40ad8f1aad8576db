"""Explain a diagnostic, with an example and its correction."""

from __future__ import annotations

from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import print_text


def add_arguments(parser: Parser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="such as E101; lists all where left out")


def main(arguments: Arguments) -> int:
    from patterndsl.diagnostics import did_you_mean, registry

    known = registry()
    if arguments.code is None:
        print_text("\n".join(f"{code}  {kind.title}" for code, kind in known.items()))
        return 0
    kind = known.get(arguments.code.upper())
    if kind is None:
        advice = did_you_mean(arguments.code, known) or "`patterndsl explain` lists them"
        raise UsageError(f"no diagnostic has the code {arguments.code!r}; {advice}")
    print_text(kind.explain().rstrip())
    return 0
