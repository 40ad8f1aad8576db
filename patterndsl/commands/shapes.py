"""Options for run-time inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patterndsl.commands.options import Arguments, Parser, UsageError

if TYPE_CHECKING:
    from patterndsl.spec import Spec



def add_inputs(parser: Parser) -> None:
    told = "a run-time input: NAME=FILE.npy, or NAME=packed:16 for 16 documents of random lengths"
    parser.add_argument(
        "--input", dest="inputs", metavar="NAME=VALUE", action="append", default=[], help=told
    )


def inputs_of(arguments: Arguments, spec: Spec, n: int, seed: int = 0) -> dict[str, Any]:
    """The run-time inputs, integers [n] or [batch, n]. Raises SpecError where the spec has others."""
    from patterndsl.spec import check_inputs

    found: dict[str, Any] = {}
    for text in arguments.inputs:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--input: give name=file.npy or name=packed:16, not {text!r}")
        found[name] = _packed(value, n, seed) if value.startswith("packed:") else _load(value)
    return check_inputs(spec.inputs, found, n)


def _packed(text: str, n: int, seed: int) -> Any:
    """Ids of documents of random lengths, one after the other."""
    import numpy as np

    digits = text.removeprefix("packed:")
    count = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0
    if not 0 < count <= n:
        raise UsageError(f"--input: from 1 to {n} documents can be packed, not {digits!r}")
    ids = np.zeros(n, np.int32)
    if count > 1:
        ids[np.random.default_rng(seed).choice(np.arange(1, n), count - 1, replace=False)] = 1
    return np.cumsum(ids, dtype=np.int32)


def _load(path: str) -> Any:
    import numpy as np

    if not Path(path).is_file():
        raise UsageError(f"--input: there is no file {path!r}")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"--input: {path!r} is not a .npy file: {error}") from None
