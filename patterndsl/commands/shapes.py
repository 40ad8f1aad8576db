"""Options for the shapes of q, k and v, and for run-time inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patterndsl.commands.options import Arguments, Parser, UsageError, whole

if TYPE_CHECKING:
    from patterndsl.spec import Spec
    from patterndsl.trial import Shape

DTYPES = ("float32", "bfloat16", "float16")
HEADS = 4
MOST_PACKED = 2**28
LARGEST = 2**36
"""Most bytes of q, k and v together."""


def add_shape(parser: Parser, batch: bool = True) -> None:
    if batch:
        parser.add_argument("--batch", type=whole, default=1, metavar="B", help="batch size (1)")
    told = f"query heads (as many as the spec names, or {HEADS})"
    parser.add_argument("--heads", type=whole, metavar="N", help=told)
    told = "key heads, shared by groups of query heads (N)"
    parser.add_argument("--kv-heads", type=whole, metavar="K", help=told)
    parser.add_argument("--head-dim", type=whole, default=64, metavar="H", help="size of a head (64)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of q, k and v (float32)")


def add_inputs(parser: Parser) -> None:
    told = (
        "a run-time input: NAME=FILE.npy, NAME=packed:16 for 16 documents of random lengths, or "
        "NAME=random:16 for 16 random centroids"
    )
    parser.add_argument(
        "--input", dest="inputs", metavar="NAME=VALUE", action="append", default=[], help=told
    )


def shape_of(arguments: Arguments, spec: Spec) -> Shape:
    """The shapes that were asked for, checked against each other."""
    from patterndsl.trial import Shape

    heads = arguments.heads or named_heads(spec)
    kv_heads = arguments.kv_heads or heads
    if heads % kv_heads:
        raise UsageError(f"--kv-heads: {heads} query heads are no multiple of {kv_heads} key heads")
    batch = getattr(arguments, "batch", 1)
    shape = Shape(arguments.n, batch, heads, kv_heads, arguments.head_dim, arguments.dtype)
    if shape.nbytes > LARGEST:
        size = f"{shape.nbytes / 2**30:.0f} GiB"
        raise UsageError(f"q, k and v take {size} at these sizes, more than the {LARGEST >> 30} GiB allowed")
    return shape


def named_heads(spec: Spec) -> int:
    """As many heads as the spec names, or 4."""
    from patterndsl import api
    from patterndsl.ir.resolve import inline, set_params

    named = api.named_heads(inline(set_params(spec.module)).main)
    return named if named > 1 else HEADS


def inputs_of(arguments: Arguments, spec: Spec, n: int, seed: int = 0) -> dict[str, Any]:
    """The run-time inputs, integers [n] or [batch, n], and centroids. Raises SpecError where the spec has
    others."""
    from patterndsl.spec import check_inputs

    found: dict[str, Any] = {}
    for text in arguments.inputs:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--input: give name=file.npy, name=packed:16 or name=random:16, not {text!r}")
        if value.startswith("packed:"):
            found[name] = _packed(value, n, seed)
        elif value.startswith("random:"):
            found[name] = _random(value, getattr(arguments, "head_dim", 64), seed)
        else:
            found[name] = _load(value)
    return check_inputs(spec.module.inputs, found, n)


def _count(text: str) -> int:
    """The number after the colon; 0 where there is none."""
    digits = text.partition(":")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0


def _random(text: str, head_dim: int, seed: int) -> Any:
    """Centroids [k, head_dim], standard normal."""
    import numpy as np

    count = _count(text)
    if not 0 < count * head_dim <= MOST_PACKED:
        raise UsageError(f"--input: from 1 to {MOST_PACKED // head_dim} centroids can be drawn, not {text!r}")
    return np.random.default_rng(seed + 1).standard_normal((count, head_dim), np.float32)


def _packed(text: str, n: int, seed: int) -> Any:
    """Ids of documents of random lengths, one after the other."""
    import numpy as np

    count = _count(text)
    if n > MOST_PACKED:
        raise UsageError(f"--input: documents are packed for up to {MOST_PACKED} tokens, not {n}")
    if not 0 < count <= n:
        raise UsageError(f"--input: from 1 to {n} documents can be packed, not {text!r}")
    ids = np.zeros(n, np.int32)
    if count > 1:
        ids[np.random.default_rng(seed).choice(np.arange(1, n), count - 1, replace=False)] = 1
    return np.cumsum(ids, dtype=np.int32)


def _load(path: str) -> Any:
    import numpy as np

    if not Path(path).is_file():
        raise UsageError(f"--input: there is no file {path!r}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        found = None
    if not isinstance(found, np.ndarray):
        raise UsageError(f"--input: {path!r} is not a .npy file, as numpy.save writes one")
    return found
