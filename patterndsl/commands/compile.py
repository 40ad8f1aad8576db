"""Print what a spec becomes: syntax tree, IR, integer sets, plan, jaxpr, StableHLO, or a device's kernels."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from patterndsl.commands import options, shapes
from patterndsl.commands.options import Arguments, Parser, UsageError
from patterndsl.commands.output import print_text, progress

if TYPE_CHECKING:
    from patterndsl.api import Attention
    from patterndsl.ir.nodes import Module
    from patterndsl.trial import Shape


def add_arguments(parser: Parser) -> None:
    options.add_spec(parser)
    stages = ", ".join(STAGES)
    parser.add_argument("--emit", metavar="STAGE", help=f"{stages} (plan)")
    options.add_length(parser, 1024)
    options.add_layer(parser)
    options.add_head(parser)
    shapes.add_shape(parser)
    options.add_backend(parser)
    told = "a device that need not be there: cuda-sm90, tpu-v4, tpu-v5e, tpu-v5p, tpu-v6e, tpu-7x"
    parser.add_argument("--target", metavar="DEVICE", help=told)
    told = "compile the kernels for --target, and print what its compiler says they take"
    parser.add_argument("--report", action="store_true", help=told)
    told = "print the IR after every pass to standard error"
    parser.add_argument("--print-ir-after-all", action="store_true", help=told)
    options.add_output(parser, "a file to write to")


def main(arguments: Arguments) -> int:
    stage = arguments.emit or ("report" if arguments.report else "plan")
    if stage == "triton":
        raise UsageError("--emit triton: GPU kernels are written for Mosaic; --emit mosaic prints those")
    if stage not in STAGES and (arguments.emit or not arguments.report):
        raise UsageError(f"--emit: {stage!r} is none of {', '.join(STAGES)}")
    if arguments.report and stage not in ("report", "mosaic"):
        raise UsageError("--report: of kernels alone; leave --emit out, or ask for mosaic")
    if stage in ("report", "mosaic") and arguments.target is None:
        raise UsageError("give --target, the device that kernels are for")
    if arguments.print_ir_after_all:
        optimized(arguments, show=True)
    with progress(f"compiling to {stage}"):
        text = STAGES.get(stage, _mosaic)(arguments).rstrip("\n") + "\n"
    if arguments.output is None:
        print_text(text, end="")
    else:
        options.write_bytes(arguments.output, text.encode())
    return 0


def optimized(arguments: Arguments, show: bool = False) -> Module:
    """The spec's module after the passes, each printed if so asked."""
    from patterndsl.ir import resolve
    from patterndsl.ir.mlir import text
    from patterndsl.passes import run

    def printer(name: str, module: Module) -> None:
        print_text(f"// after {name}\n{text(module)}", sys.stderr)

    module = resolve.inline(
        resolve.set_params(options.read_spec(arguments).module, options.params_of(arguments))
    )
    main = resolve.pick_layer(module.main, arguments.layer)
    return run(dataclasses.replace(module, main=main), print_ir=printer if show else None)


def _ast(arguments: Arguments) -> str:
    from patterndsl.syntax.parser import decode, parse_source

    data, name = options.read_text(arguments.file, arguments.expression)
    return "\n".join(_tree(parse_source(decode(data, name)), "")) + "\n"


def _tree(node: Any, label: str, depth: int = 0) -> list[str]:
    """A syntax tree, one node a line, children indented; positions are line:column."""
    line, column = node.span.source.location(node.span.start)
    plain, below = [], []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if field.name in ("span", "operator_spans", "comments"):
            continue
        if dataclasses.is_dataclass(value):
            below += _tree(value, f"{field.name}: ", depth + 1)
        elif isinstance(value, tuple) and any(dataclasses.is_dataclass(x) for x in value):
            for x in value:
                below += _tree(x, "", depth + 1)
        elif value is not None and value != ():
            plain.append(f" {field.name}={value!r}")
    return [f"{'  ' * depth}{label}{type(node).__name__}{''.join(plain)} @{line}:{column}", *below]


def _ir(arguments: Arguments) -> str:
    from patterndsl.ir.mlir import text

    return text(optimized(arguments))


def _sets(arguments: Arguments) -> str:
    from patterndsl.ir import resolve, sets
    from patterndsl.ir.expr import N, as_expr
    from patterndsl.ir.nodes import Mix
    from patterndsl.ir.normal import TOKENS, lift_mix, terms

    node = lift_mix(resolve.pick_head(optimized(arguments).main, arguments.head, None))
    lines = []
    for number, branch in enumerate(node.branches if isinstance(node, Mix) else (node,)):
        if isinstance(node, Mix):
            lines.append(f"# branch {number}")
        lengths = N >= 1
        try:
            found = sets.pattern_set(branch)
        except sets.NotQuasiAffine as why:
            lines.append(f"# at n = {arguments.n}: {why.reason}")
            lengths = N.eq(arguments.n)
            found = terms(resolve.at_length(branch, arguments.n), as_expr(arguments.n))
        for pool, term in found.items():
            what = (
                "k is a token"
                if pool is TOKENS
                else f"k is a chunk of {pool.size} tokens, level {pool.level}"
            )
            try:
                shown = sets.notation(term.keep, sets.Domain("present", pool.stride, lengths))
            except sets.NotDecided as why:
                shown = f"# {term.keep}: no exact set, since {why.reason}"
            lines.append(f"# {what}\n{shown}")
    return "\n".join(lines)


def _plan(arguments: Arguments) -> str:
    attention, shape = _attention(arguments)
    plan = shape.plan(attention)
    return f"{attention.explain_choice(plan, shape.target(attention))}\n{plan.explain()}"


def _jaxpr(arguments: Arguments) -> str:
    import jax

    attention, shape = _attention(arguments)
    operands, given = shape.abstract(attention)
    return str(jax.make_jaxpr(lambda q, k, v, given: attention(q, k, v, **given))(*operands, given))


def _stablehlo(arguments: Arguments) -> str:
    import jax

    attention, shape = _attention(arguments)
    operands, given = shape.abstract(attention)
    if attention.device is None:
        return str(jax.jit(attention.__call__).lower(*operands, **given).as_text())
    from patterndsl.devices import toolchain

    tools = toolchain(attention.device)
    try:
        traced = jax.jit(attention.__call__).trace(*operands, **given)
        return str(traced.lower(lowering_platforms=(tools.PLATFORM,)).as_text())
    except ModuleNotFoundError as error:
        raise UsageError(f"--target {arguments.target}: {tools.missing() or error}") from None


def _mosaic(arguments: Arguments) -> str:
    """The kernels, and with --report what the compiler says of them."""
    from patterndsl.devices import Case, DeviceError, compile_kernels

    attention, shape = _attention(arguments)
    assert attention.device is not None
    try:
        (found,) = compile_kernels(
            [Case(attention, shape)], attention.device, only_lower=not arguments.report
        )
    except DeviceError as error:
        raise UsageError(f"--target {arguments.target}: {error}") from None
    if not found:
        choice = attention.explain_choice(shape.plan(attention), shape.target(attention))
        raise UsageError(f"--target {arguments.target}: there are no kernels; {choice}")
    refused = [f"{kernel.name}: {kernel.error}" for kernel in found if kernel.error is not None]
    if refused:
        raise UsageError("\n".join(refused))
    lines = []
    if arguments.emit is not None:
        lines += [f"// {kernel.name}\n{kernel.text}" for kernel in found]
    if arguments.report:
        width = max(len(name) for kernel in found for name in kernel.resources)
        for kernel in found:
            lines.append(f"{kernel.name}, on {arguments.target}")
            lines += [f"  {name:{width}}  {number:,}" for name, number in kernel.resources.items()]
    return "\n".join(lines)


def _attention(arguments: Arguments) -> tuple[Attention, Shape]:
    from patterndsl.api import compile
    from patterndsl.devices import DEVICES

    spec = options.read_spec(arguments)
    shape = shapes.shape_of(arguments, spec)
    params, layer = options.params_of(arguments), arguments.layer
    attention = compile(spec, params=params, layer=layer, backend=arguments.backend)
    if arguments.target is None:
        return attention, shape
    if arguments.target not in DEVICES:
        raise UsageError(f"--target: {arguments.target!r} is none of {', '.join(DEVICES)}")
    return attention.on(DEVICES[arguments.target]), shape


STAGES: dict[str, Callable[[Arguments], str]] = {
    "ast": _ast,
    "ir": _ir,
    "sets": _sets,
    "plan": _plan,
    "jaxpr": _jaxpr,
    "stablehlo": _stablehlo,
    "mosaic": _mosaic,
}
