"""`patterndsl fmt FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from patterndsl.commands import options
from patterndsl.commands.options import read_text, usage
from patterndsl.commands.output import print_text


def fmt(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Spec files (`-`: standard input).")
    ] = None,
    expression: options.Expression = None,
    write: Annotated[bool, typer.Option("--write", "-w", help="Rewrite the files in place.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file is not in this form.")
    ] = False,
) -> None:
    """Print a spec in its canonical form."""
    from patterndsl.syntax.formatter import format_file
    from patterndsl.syntax.parser import decode, parse_source

    inputs: list[Path | None] = list(files or [])
    if expression is not None:
        inputs.append(None)
    if not inputs:
        usage("give a FILE or -e EXPR")
    if write and (check or expression is not None or Path("-") in inputs):
        usage("needs files, and excludes --check", "--write")
    unformatted = []
    for path in inputs:
        data, name = read_text(path, expression if path is None else None)
        source = decode(data, name)
        text = format_file(parse_source(source))
        if check:
            if text != source.text:
                unformatted.append(name)
        elif not write:
            print_text(text, end="")
        elif path is not None and data != text.encode():
            path.write_text(text, encoding="utf-8", newline="\n")
    if unformatted:
        for name in unformatted:
            print_text(f"not in canonical form: {name}", sys.stderr)
        raise typer.Exit(1)
