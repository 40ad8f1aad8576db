"""Draw a spec's mask, and its summaries level by level, in the terminal or as PNG or SVG."""

from __future__ import annotations

import shutil
import sys

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import colored, print_text, progress

FILE_CELLS, MOST_CELLS = 512, 2048
"""Cells on a side of a picture in a file, and the most that may be asked for."""


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    options.add_length(parser, 64)
    options.add_head(parser)
    options.add_layer(parser)
    shapes.add_inputs(parser)
    parser.add_argument("--cells", type=options.whole, metavar="C", help="cells on a side (as many as fit)")
    options.add_output(parser, "a .png or .svg to write")


def main(arguments: Arguments) -> int:
    from patterndsl import plot

    output, cells = arguments.output, arguments.cells
    if output is not None and output.suffix.lower() not in plot.FORMATS:
        raise UsageError(f"-o: a picture is .png or .svg, not {output.name!r}")
    if cells is not None and cells > MOST_CELLS:
        raise UsageError(f"--cells: at most {MOST_CELLS}")
    spec = options.read_spec(arguments)
    params = options.params_of(arguments)
    plot.drawable(spec, arguments.n, params, arguments.head, arguments.layer)  # before inputs are asked for
    columns = shutil.get_terminal_size().columns
    with progress(f"drawing n = {arguments.n}"):
        drawn = plot.picture(
            spec,
            arguments.n,
            cells=cells or (FILE_CELLS if output is not None else plot.fitting_cells(spec, columns)),
            params=params,
            head=arguments.head,
            layer=arguments.layer,
            inputs=shapes.inputs_of(arguments, spec, arguments.n),
        )
        if output is not None:
            try:
                plot.save(drawn, output)
            except plot.PlotUnavailable as error:
                raise UsageError(f"-o: {error}") from None
            except OSError as error:
                raise UsageError(f"-o: {str(output)!r} cannot be written: {error.strerror}") from None
    if output is None:
        print_text(plot.terminal(drawn, columns, colored(sys.stdout)))
    for note in plot.notes(spec, arguments.head, arguments.layer, options.params_of(arguments)):
        print_text(f"note: {note}")
    return 0
