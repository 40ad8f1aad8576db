"""`analyze` answers or refuses with a diagnostic, for any spec."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from patterndsl.analysis import analyze
from patterndsl.analysis.report import Between
from patterndsl.diagnostics import SpecError
from patterndsl.ir.nodes import Node
from patterndsl.spec import Spec
from tests.strategies import as_module, nodes


@settings(max_examples=20, deadline=None)
@given(nodes(2, choice=True), st.sampled_from([1, 2, 65, 1000, 8192, 10**12]))
def test_analyze_answers(node: Node, n: int) -> None:
    try:
        report = analyze(Spec(as_module(node)), n)
    except SpecError as error:
        assert error.diagnostics
        return
    assert str(report)
    json.dumps(report.to_dict(), allow_nan=False)
    slots = report.slots
    low, high = slots if isinstance(slots, Between) else (slots, slots)
    assert 0 <= low <= high
