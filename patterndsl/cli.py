"""The command line. One file per verb in `patterndsl.commands`; what is heavy is imported where it is used.

Exit codes: 0 fine, 1 the spec is wrong, 2 wrong usage; 70 a fault of patterndsl itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from patterndsl.commands import explain, fmt, patterns

INTERNAL = 70
"""Exit code of an internal error (EX_SOFTWARE)."""

app = typer.Typer(
    name="patterndsl",
    help="An optimizing compiler for attention sparsity.",
    rich_markup_mode=None,  # rich is loaded for progress alone, and only on a terminal
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (fmt, patterns, explain):
    name = verb.__name__.rpartition(".")[2]
    app.command(name)(getattr(verb, name))


@app.callback(invoke_without_command=True)
def top(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from patterndsl import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code. No input makes it raise."""
    from patterndsl.diagnostics import SpecError

    try:
        app(list(arguments), prog_name="patterndsl")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except SpecError as error:
        from patterndsl.commands.output import print_diagnostics

        print_diagnostics(error.diagnostics)
        return 1
    except BrokenPipeError:  # `patterndsl patterns | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PATTERNDSL_DEBUG"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"internal error: {what[:300]}", file=sys.stderr)
        print(
            "please report it, with the spec: patterndsl is at fault (PATTERNDSL_DEBUG=1 shows the trace)",
            file=sys.stderr,
        )
        return INTERNAL
    return 0
