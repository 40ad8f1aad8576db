"""Run a spec on random q, k, v: error against the reference, time against dense attention."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import print_json, print_text, progress

if TYPE_CHECKING:
    from patterndsl.trial import Shape

COPIES = 4
"""How often a run holds what q, k and v take: as drawn, transposed, summarised, and the output."""


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    options.add_length(parser, 8192)
    options.add_layer(parser)
    shapes.add_shape(parser)
    shapes.add_inputs(parser)
    options.add_backend(parser)
    told = "time up to R runs, for 4 seconds, of which the median counts (5)"
    parser.add_argument("--repeat", type=options.whole, default=5, metavar="R", help=told)
    told = "of the random operands (0)"
    parser.add_argument("--seed", type=options.index, default=0, metavar="S", help=told)
    options.add_json(parser)


def _fits(shape: Shape) -> None:
    """Raise UsageError where the arrays of a run exceed the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    needed = COPIES * shape.nbytes
    if memory is not None and needed > memory:
        sizes = f"{needed / 2**30:.0f} GiB of {memory / 2**30:.0f} GiB"
        raise UsageError(
            f"the arrays of a run at these sizes take about {sizes}: a smaller -n, or fewer --heads"
        )


def main(arguments: Arguments) -> int:
    from patterndsl.trial import trial

    spec = options.read_spec(arguments)
    shape = shapes.shape_of(arguments, spec)
    _fits(shape)
    inputs = shapes.inputs_of(arguments, spec, shape.n, arguments.seed)
    with progress(f"running at n = {shape.n}"):
        result = trial(
            spec,
            shape,
            params=options.params_of(arguments),
            layer=arguments.layer,
            backend=arguments.backend,
            inputs=inputs,
            seed=arguments.seed,
            repeats=arguments.repeat,
        )
    if arguments.json:
        print_json(result.to_dict())
    else:
        print_text(str(result))
    return 0
