"""Run a spec on random q, k, v: error against the reference, time against dense attention."""

from __future__ import annotations

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser
from patterndsl.commands.output import print_json, print_text, progress


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    options.add_length(parser, 8192)
    options.add_layer(parser)
    shapes.add_shape(parser)
    shapes.add_inputs(parser)
    options.add_backend(parser)
    told = "time R runs, of which the median counts (5)"
    parser.add_argument("--repeat", type=options.whole, default=5, metavar="R", help=told)
    told = "of the random operands (0)"
    parser.add_argument("--seed", type=options.index, default=0, metavar="S", help=told)
    options.add_json(parser)


def main(arguments: Arguments) -> int:
    from patterndsl.trial import trial

    spec = options.read_spec(arguments)
    shape = shapes.shape_of(arguments, spec)
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
