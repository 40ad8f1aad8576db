"""Print a spec in its canonical form, or rewrite files."""

from __future__ import annotations

import sys
from pathlib import Path

from patterndsl.commands.options import Arguments, Parser, UsageError, read_text, write_bytes
from patterndsl.commands.output import print_text


def add_arguments(parser: Parser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="spec files (-: standard input)")
    parser.add_argument("-e", dest="expression", metavar="EXPR", help="a spec in place of files")
    parser.add_argument("-w", "--write", action="store_true", help="rewrite the files in place")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a file is not in this form")


def main(arguments: Arguments) -> int:
    from patterndsl.syntax.formatter import format_file
    from patterndsl.syntax.parser import decode, parse_source

    files: list[Path | None] = list(arguments.files)
    if arguments.expression is not None or not files:
        files.append(None)
    if arguments.write and (arguments.check or None in files or Path("-") in files):
        raise UsageError("--write needs files, and excludes --check")
    unformatted = []
    for path in files:
        data, name = read_text(path, arguments.expression if path is None else None)
        source = decode(data, name)
        text = format_file(parse_source(source))
        if arguments.check:
            if text != source.text:
                unformatted.append(name)
        elif path is None or not arguments.write:
            print_text(text, end="")
        elif data != text.encode():
            write_bytes(path, text.encode())
    for name in unformatted:
        print_text(f"not in canonical form: {name}", sys.stderr)
    return int(bool(unformatted))
