"""`patterndsl explain CODE`."""

from __future__ import annotations

from typing import Annotated

import typer

from patterndsl.commands.options import usage
from patterndsl.commands.output import print_text


def explain(
    code: Annotated[
        str | None, typer.Argument(help="The code of an error or warning, such as E101; all, without it.")
    ] = None,
) -> None:
    """What a diagnostic means, with an example and its correction."""
    from patterndsl.diagnostics import did_you_mean, registry

    known = registry()
    if code is None:
        print_text("\n".join(f"{name}  {kind.title}" for name, kind in known.items()))
        return
    kind = known.get(code.upper())
    if kind is None:
        advice = did_you_mean(code, known) or "`patterndsl explain` lists them"
        usage(f"no diagnostic has the code {code!r}; {advice}")
    print_text(kind.explain().rstrip())
