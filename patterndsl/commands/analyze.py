"""Say what a spec keeps and costs: density, pairs, growth and why, plan, memory.

Nothing here takes n² work: a million tokens are counted in seconds.
"""

from __future__ import annotations

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import print_json, print_text, progress


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    options.add_lengths(parser, (65536,), "numbers of tokens, such as 65536,2**20 (65536)")
    options.add_layer(parser)
    told = "query heads, over which figures are summed (as many as the spec names, or 1)"
    parser.add_argument("--heads", type=options.whole, metavar="N", help=told)
    told = "size of a head, for FLOPs and bytes (64)"
    parser.add_argument("--head-dim", type=options.whole, default=64, metavar="H", help=told)
    shapes.add_inputs(parser)
    options.add_json(parser)


def main(arguments: Arguments) -> int:
    from patterndsl.analysis import analyze

    spec = options.read_spec(arguments)
    inputs = None
    if arguments.inputs:
        if len(arguments.n) > 1:
            raise UsageError("--input: run-time inputs have one length, so give one -n")
        inputs = shapes.inputs_of(arguments, spec, arguments.n[0])
    with progress(f"analysing n = {', '.join(map(str, arguments.n))}"):
        report = analyze(
            spec,
            arguments.n,
            options.params_of(arguments),
            layer=arguments.layer,
            num_heads=arguments.heads,
            head_dim=arguments.head_dim,
            inputs=inputs,
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print_text(str(report))
    return 0
