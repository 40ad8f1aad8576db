"""What several verbs take: a spec from a file or an expression, params, lengths."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patterndsl.spec import Spec

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace
LARGEST = 10**15


class UsageError(Exception):
    """The command line asks for something that cannot be: exit code 2."""


def add_spec(parser: Parser) -> None:
    """FILE or -e EXPR, and -p."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a spec file (-: standard input)")
    parser.add_argument("-e", dest="expression", metavar="EXPR", help="a spec in place of FILE")
    add_params(parser)


def add_params(parser: Parser) -> None:
    told = "override a param; may be repeated"
    parser.add_argument("-p", dest="params", metavar="NAME=VALUE", action="append", default=[], help=told)


def add_length(parser: Parser, default: int | None = None) -> None:
    told = "" if default is None else f" ({default})"
    parser.add_argument("-n", type=whole, metavar="N", default=default, help=f"number of tokens{told}")


def add_lengths(parser: Parser, default: tuple[int, ...], told: str) -> None:
    parser.add_argument("-n", type=lengths, metavar="N[,N…]", default=default, help=told)


def add_layer(parser: Parser) -> None:
    told = "which layer, where the spec has `layers` (0)"
    parser.add_argument("--layer", type=index, default=0, metavar="I", help=told)


def add_head(parser: Parser) -> None:
    told = "which query head, where heads differ (0)"
    parser.add_argument("--head", type=index, default=0, metavar="I", help=told)


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_output(parser: Parser, told: str) -> None:
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help=told)


def add_backend(parser: Parser) -> None:
    parser.add_argument("--backend", default="auto", metavar="NAME", help="a backend by its name (auto)")


def whole(text: str) -> int:
    """A positive whole number, plain (underscores allowed) or as a power: 65536, 65_536, 2**16."""
    return _number(text, least=1)


def index(text: str) -> int:
    """A whole number from 0."""
    return _number(text, least=0)


def lengths(text: str) -> tuple[int, ...]:
    """Numbers of tokens, separated by commas."""
    return tuple(dict.fromkeys(whole(part) for part in text.split(",")))


def _number(text: str, least: int | None) -> int:
    match = re.fullmatch(r"\s*(-?\d[\d_]{0,30})(?:\s*\*\*\s*(\d{1,2}))?\s*", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    value: int = int(match[1].replace("_", "")) ** int(match[2] or 1)
    if least is not None and value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    if abs(value) > LARGEST:
        raise argparse.ArgumentTypeError(f"{text.strip()} is more than 10**15")
    return value


def params_of(arguments: Arguments) -> dict[str, int]:
    """``-p name=value``, repeated."""
    found: dict[str, int] = {}
    for text in arguments.params:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UsageError(f"-p: a param is given as name=value, not {text!r}")
        if name in found:
            raise UsageError(f"-p: {name!r} is given twice")
        try:
            found[name] = _number(value, least=None)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"-p {name}: {error}") from None
    return found


def read_spec(arguments: Arguments) -> Spec:
    """The spec of a command line. Raises SpecError."""
    from patterndsl.frontend import parse

    data, name = read_text(arguments.file, arguments.expression)
    return parse(data, filename=name)


def read_text(file: Path | None, expression: str | None) -> tuple[bytes, str]:
    """The bytes of a spec, and the name that it is shown under."""
    if (file is None) == (expression is None):
        raise UsageError("give a FILE or -e EXPR" + ("" if file is None else ", not both"))
    if expression is not None:
        return expression.encode("utf-8", "surrogateescape"), "<expression>"
    assert file is not None
    if str(file) == "-":
        return sys.stdin.buffer.read(), "<stdin>"
    return read_bytes(file), str(file)


def read_bytes(path: Path) -> bytes:
    """A file named on the command line."""
    if not path.exists():
        raise UsageError(f"there is no file {str(path)!r}")
    if not path.is_file():
        raise UsageError(f"{str(path)!r} is not a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def write_bytes(path: Path, data: bytes) -> None:
    """To a file named on the command line."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}") from None
