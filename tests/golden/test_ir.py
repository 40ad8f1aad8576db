"""The textual IR: each ``ir/NAME.attn`` beside its IR as lowered (``NAME.mlir``) and after the pipeline
(``NAME.opt.mlir``). The texts are parsed back, and both must mean what the spec means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.ir.mlir import text
from patterndsl.ir.mlir_parser import parse
from patterndsl.ir.nodes import Module
from patterndsl.ir.resolve import set_params
from patterndsl.ir.verify import verify
from patterndsl.passes import run
from patterndsl.spec import Spec

HERE = Path(__file__).parent / "ir"


def slots(module: Module, n: int, head: int, layer: int) -> dict[tuple[int, int, int], bytes]:
    """The counts of every slot that some query keeps."""
    spec = Spec(module)
    inputs = {name: np.arange(n) // 3 for name in spec.inputs}
    found = spec.slots(n, head=head, num_heads=8, layer=layer, inputs=inputs)
    columns = zip(found.level, found.start, found.stop, found.counts.T, strict=True)
    return {(int(a), int(b), int(c)): column.tobytes() for a, b, c, column in columns if column.any()}


@pytest.mark.parametrize("path", sorted(HERE.glob("*.attn")), ids=lambda p: p.stem)
def test_textual_ir(path: Path, golden: Callable[[Path, str], None]) -> None:
    module = pd.load(path).module
    golden(path.with_suffix(".mlir"), text(module))
    optimized = run(set_params(module))
    golden(path.with_suffix(".opt.mlir"), text(optimized))

    back, optimized_back = (parse(path.with_suffix(s).read_text("utf-8")) for s in (".mlir", ".opt.mlir"))
    assert back == module and back.main is module.main
    assert optimized_back.main is optimized.main
    for read in (back, optimized_back):
        verify(read)
        for n in (1, 16, 37):
            for head, layer in ((0, 0), (5, 2), (7, 5)):
                assert slots(read, n, head, layer) == slots(module, n, head, layer)
