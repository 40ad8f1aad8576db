"""What several verbs take: a spec from a file or an expression, params, lengths."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

from patterndsl.commands.output import print_text

if TYPE_CHECKING:
    from patterndsl.spec import Spec

File: TypeAlias = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="A spec file (`-`: standard input), unless -e is given.")
]
Expression: TypeAlias = Annotated[
    str | None, typer.Option("-e", metavar="EXPR", help="A spec in place of FILE.")
]
Params: TypeAlias = Annotated[
    list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="Override a param; may be repeated.")
]
Lengths: TypeAlias = Annotated[
    str | None,
    typer.Option("-n", metavar="N[,N…]", help="Numbers of tokens, such as 65536,1048576 or 2**20."),
]
Length: TypeAlias = Annotated[str | None, typer.Option("-n", metavar="N", help="Number of tokens.")]
Layer: TypeAlias = Annotated[int, typer.Option(min=0, help="Which layer, of a spec with `layers`.")]
Head: TypeAlias = Annotated[int, typer.Option(min=0, help="Which query head, of a spec with `heads`.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Backend: TypeAlias = Annotated[str, typer.Option(help="Name of a backend, or auto.")]
Output: TypeAlias = Annotated[Path | None, typer.Option("-o", metavar="FILE", help="Write to a file.")]


def usage(message: str, option: str | None = None) -> NoReturn:
    """Wrong usage: say so and exit with 2."""
    where = "" if option is None else f"{option}: "
    print_text(f"error: {where}{message}", sys.stderr)
    raise typer.Exit(2)


def read_text(file: Path | None, expression: str | None) -> tuple[bytes, str]:
    """The bytes of the spec, and the name it is shown under."""
    if (file is None) == (expression is None):
        usage("give a FILE or -e EXPR" + ("" if file is None else ", not both"))
    if expression is not None:
        return expression.encode("utf-8", "surrogateescape"), "<expression>"
    assert file is not None
    if str(file) == "-":
        return sys.stdin.buffer.read(), "<stdin>"
    if not file.exists():
        usage(f"there is no file {str(file)!r}")
    if not file.is_file():
        usage(f"{str(file)!r} is not a file")
    try:
        return file.read_bytes(), str(file)
    except OSError as error:
        usage(f"{str(file)!r} cannot be read: {error.strerror}")


def read_spec(file: Path | None, expression: str | None) -> Spec:
    """The spec of a command line. Raises SpecError."""
    from patterndsl.frontend import parse
    from patterndsl.syntax.parser import decode

    data, name = read_text(file, expression)
    return parse(decode(data, name).text, filename=name)


def parse_params(given: list[str] | None) -> dict[str, int]:
    """``-p name=value``, repeated."""
    found: dict[str, int] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            usage(f"a param is given as name=value, not {text!r}", "-p")
        if name.strip() in found:
            usage(f"{name.strip()!r} is given twice", "-p")
        found[name.strip()] = whole(value, "-p", least=None)
    return found


def parse_lengths(text: str | None, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """``-n 65536,1048576``."""
    if text is None:
        if default is None:
            usage("how many tokens? give -n", "-n")
        return default
    return tuple(dict.fromkeys(whole(part, "-n") for part in text.split(",")))


def parse_length(text: str | None, default: int | None = None) -> int:
    """One length."""
    lengths = parse_lengths(text, None if default is None else (default,))
    if len(lengths) != 1:
        usage("one length is needed", "-n")
    return lengths[0]


def whole(text: str, option: str, least: int | None = 1) -> int:
    """A whole number, plain (underscores allowed) or as a power."""
    match = re.fullmatch(r"\s*(-?\d[\d_]{0,30})(?:\s*\*\*\s*(\d{1,2}))?\s*", text, re.ASCII)
    if match is None:
        usage(f"{text!r} is not a whole number", option)
    value: int = int(match[1].replace("_", "")) ** int(match[2] or 1)
    if least is not None and value < least:
        usage(f"{value} is less than {least}", option)
    if abs(value) > 10**15:
        usage(f"{text.strip()} is larger than 10**15", option)
    return value
