"""The command line. One file per verb in `patterndsl.commands`; what is heavy is imported where it is used.

Exit codes: 0 fine, 1 the spec is wrong, 2 wrong usage; 70 a fault of patterndsl itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from patterndsl.commands import analyze, check, compile, diff, explain, export, fmt, patterns, run, show
from patterndsl.commands.options import UsageError
from patterndsl.commands.output import print_diagnostics, print_text

INTERNAL = 70
"""Exit code of an internal error (EX_SOFTWARE)."""
VERBS = (check, analyze, compile, run, show, diff, export, fmt, patterns, explain)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code. No input makes it raise."""
    from patterndsl.diagnostics import SpecError

    try:
        every = parser()
        chosen = every.parse_args(arguments)
        if chosen.verb is None:
            print_text(every.format_help(), sys.stderr, end="")
            return 2
        code: int = chosen.verb(chosen)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # from argparse, after --help or wrong usage
        return done.code if isinstance(done.code, int) else 2
    except UsageError as error:
        print_text(f"patterndsl: error: {error}", sys.stderr)
        return 2
    except SpecError as error:
        print_diagnostics(error.diagnostics)
        return 1
    except BrokenPipeError:  # `patterndsl patterns | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("PATTERNDSL_DEBUG"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        print_text(f"internal error: {what[:300]}", sys.stderr)
        print_text(
            "please report it, with the spec: patterndsl is at fault (PATTERNDSL_DEBUG=1 shows the trace)",
            sys.stderr,
        )
        return INTERNAL


class Parser(argparse.ArgumentParser):
    """Takes options by their full names only."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from patterndsl import __version__

    top = Parser(prog="patterndsl", description="An optimizing compiler for attention sparsity.")
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(title="verbs", metavar="VERB")
    top.set_defaults(verb=None)
    for module in VERBS:
        name = module.__name__.rpartition(".")[2]
        summary = (module.__doc__ or "").partition("\n")[0]
        sub = verbs.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(verb=module.main)
    return top
