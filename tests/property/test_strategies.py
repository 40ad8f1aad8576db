"""The random patterns themselves: valid at every n, and of every kind there is."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patterndsl.ir.nodes import Pattern
from patterndsl.ir.normal import walk
from patterndsl.patterns import builtins
from patterndsl.spec import Spec
from tests.strategies import as_module, grids, input_values, nodes, specs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.integers(1, 40))
def test_random_specs_have_a_meaning_at_every_length(spec: Spec, n: int) -> None:
    assert spec.slots(n, inputs=input_values(spec.inputs, n)).counts.shape[0] == n


@settings(max_examples=40, deadline=None)
@given(grids())
def test_random_grids_fit_their_length(grid) -> None:
    n, node = grid
    assert Spec(as_module(node)).mask(n).shape == (n, n)


def test_every_builtin_is_drawn() -> None:
    drawn: set[str] = set()

    @settings(max_examples=800, deadline=None, database=None, derandomize=True)
    @given(nodes(2, choice=True), grids())
    def draw(node, grid) -> None:
        drawn.update(p.name for p in (*walk(node), grid[1]) if isinstance(p, Pattern))

    draw()
    assert drawn == set(builtins())
