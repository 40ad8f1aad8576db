"""Say whether two specs are the same pattern for every n, or where they differ first.

Exits with 1 if they differ; with 0 if they are the same, or if no difference was found.
"""

from __future__ import annotations

from pathlib import Path

from patterndsl.commands import options
from patterndsl.commands.options import Arguments, Parser, UsageError, read_text
from patterndsl.commands.output import print_json, print_text, progress

MOST = 1024
"""Largest n up to which masks may be compared one by one."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="spec files")
    told = "a spec in place of a FILE; may be given twice"
    parser.add_argument("-e", dest="expressions", metavar="EXPR", action="append", default=[], help=told)
    options.add_params(parser)
    told = "compare masks one by one up to this n (64)"
    parser.add_argument("-n", type=options.whole, metavar="N", default=64, help=told)
    options.add_json(parser)


def main(arguments: Arguments) -> int:
    from patterndsl.diff import diff
    from patterndsl.frontend import parse

    if len(arguments.files) + len(arguments.expressions) != 2:
        raise UsageError("give two specs: files, or -e EXPR in place of one or both")
    if arguments.n > MOST:
        raise UsageError(f"-n: masks are compared up to n = {MOST} at most")
    texts = [read_text(f, None) for f in arguments.files] + [
        read_text(None, e) for e in arguments.expressions
    ]
    a, b = (parse(data, filename=name) for data, name in texts)
    with progress("comparing"):
        result = diff(a, b, params=options.params_of(arguments), limit=arguments.n)
    if arguments.json:
        print_json(result.to_dict())
    else:
        print_text(str(result))
    return int(result.outcome == "different")
