"""Write the attention function as a jax.export artifact, which runs without patterndsl.

It takes q, k, v of any batch size, and run-time inputs (centroids of each head) and gates by name:
jax.export.deserialize(bytearray(data)).call(q, k, v).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import print_text, progress

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.trial import Shape

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    options.add_length(parser)
    options.add_layer(parser)
    shapes.add_shape(parser, batch=False)
    options.add_backend(parser)
    told = f"of {', '.join(PLATFORMS)}: for which to export (this one)"
    parser.add_argument("--platforms", metavar="P[,P…]", help=told)
    parser.add_argument(
        "--vjp-order", type=int, choices=(0, 1), default=0, help="1 includes the gradient (0)"
    )
    options.add_output(parser, "the artifact to write")


def main(arguments: Arguments) -> int:
    if arguments.output is None or arguments.n is None:
        raise UsageError("give -n and -o")
    spec = options.read_spec(arguments)
    shape = shapes.shape_of(arguments, spec)
    platforms = None if arguments.platforms is None else [p.strip() for p in arguments.platforms.split(",")]
    if arguments.backend == "cpu_native":
        raise UsageError(
            "--backend cpu_native: an artifact runs without patterndsl, and so without its kernel"
        )
    for name in platforms or ():
        if name not in PLATFORMS:
            raise UsageError(f"--platforms: {name!r} is none of {', '.join(PLATFORMS)}")
    with progress(f"exporting for n = {shape.n}"):
        from patterndsl.api import compile

        params, layer = options.params_of(arguments), arguments.layer
        backend = "xla" if arguments.backend == "auto" else arguments.backend
        attention = compile(spec, params=params, layer=layer, backend=backend)
        data = artifact(attention, shape, platforms, arguments.vjp_order)
    options.write_bytes(arguments.output, data)
    print_text(f"{arguments.output}: {len(data)} bytes")
    return 0


def artifact(
    attention: Attention, shape: Shape, platforms: list[str] | None = None, vjp_order: int = 0
) -> bytes:
    """The function of q, k, v [b, n, heads, head_dim] and, by name, of inputs [b, n], centroids [heads, k,
    head_dim] and a mixture's gates [b, n, heads, branches], for every b, serialized."""
    import jax
    import jax.export

    (b,) = jax.export.symbolic_shape("b")
    operands, given = shape.abstract(attention, b)
    function = jax.jit(lambda q, k, v, **given: attention(q, k, v, **given))
    exported = jax.export.export(function, platforms=platforms)(*operands, **given)
    return bytes(exported.serialize(vjp_order=vjp_order))
