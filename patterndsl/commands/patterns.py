"""List the built-in patterns: arguments, meaning, growth, source."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from patterndsl.commands.options import Arguments, Parser, UsageError, add_json
from patterndsl.commands.output import print_json, print_text

if TYPE_CHECKING:
    from patterndsl.ir.nodes import Pattern
    from patterndsl.patterns.base import Parameter

WIDTH = 100


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one pattern; all where left out")
    add_json(parser)
    parser.add_argument("--markdown", action="store_true", help="print Markdown")


def main(arguments: Arguments) -> int:
    from patterndsl.diagnostics import did_you_mean
    from patterndsl.lower.files import library
    from patterndsl.patterns import builtins

    name = arguments.name
    if arguments.json and arguments.markdown:
        raise UsageError("give --json or --markdown, not both")
    known = builtins()
    if name is not None and name not in known:
        if name in library():
            raise UsageError(f"{name!r} is not built in, but published: a file has it after `import {name}`")
        advice = did_you_mean(name, known)
        raise UsageError(f"no built-in pattern is called {name!r}" + (f"; {advice}" if advice else ""))
    shown = [known[name]] if name is not None else [known[n] for n in sorted(known)]
    if arguments.json:
        print_json([as_dict(cls) for cls in shown])
    elif arguments.markdown:
        print_text("\n".join(as_markdown(cls) for cls in shown).rstrip())
    else:
        print_text("\n\n".join(as_text(cls) for cls in shown))
        if name is None:
            print_text(
                "\n" + "\n".join(_wrapped(f"published ones, to import: {', '.join(library())}", "", 4))
            )
    return 0


def signature(cls: type[Pattern]) -> str:
    """The pattern as it is called, with its defaults."""
    from patterndsl.patterns.base import parameters

    inside = ", ".join(p.name if p.required else f"{p.name}={default_text(p)}" for p in parameters(cls))
    return f"{cls.name}({inside})" if inside else cls.name


def default_text(parameter: Parameter) -> str:
    from patterndsl.ir.text import argument_text

    return "auto" if parameter.default is None else argument_text(parameter.default, parameter.kind.sort)


def meaning(cls: type[Pattern]) -> str:
    """The docstring as one paragraph."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split())


def as_dict(cls: type[Pattern]) -> dict[str, Any]:
    from patterndsl.patterns.base import parameters

    arguments = [
        {
            "name": p.name,
            "kind": p.kind.sort if p.kind.holds == "token" else p.kind.holds,
            "required": p.required,
            "default": None if p.required else default_text(p),
            "least": p.kind.least,
            "choices": list(p.kind.choices),
        }
        for p in parameters(cls)
    ]
    return {
        "name": cls.name,
        "signature": signature(cls),
        "arguments": arguments,
        "meaning": meaning(cls),
        "growth": cls.growth,
        "source": cls.source,
        "examples": list(cls.examples),
    }


def as_text(cls: type[Pattern]) -> str:
    lines = [signature(cls)]
    lines += _wrapped(meaning(cls), "    ", 4)
    lines.append(f"    growth: {cls.growth}")
    if cls.source:
        lines += _wrapped(f"source: {cls.source}", "    ", 6)
    lines.append(f"    for example: {'; '.join(cls.examples)}")
    return "\n".join(lines)


def _wrapped(text: str, first: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent)


def as_markdown(cls: type[Pattern]) -> str:
    examples = ", ".join(f"`{e}`" for e in cls.examples)
    parts = [f"### `{signature(cls)}`", meaning(cls), f"Growth: {cls.growth}. For example {examples}."]
    if cls.source:
        parts.append(f"Source: {cls.source}.")
    return "\n\n".join(parts) + "\n"
