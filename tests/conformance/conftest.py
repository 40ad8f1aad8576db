"""The native kernel, compiled once for the tests that name its backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterndsl import cache
from tests.native import use_kernel


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cpu_native backend is built."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    use_kernel(monkeypatch)


@pytest.fixture(autouse=True)
def _built_where_named(request: pytest.FixtureRequest) -> None:
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and parameters.params.get("backend") == "cpu_native":
        request.getfixturevalue("kernel")


EVERYDAY = (
    "test_every_structure[window and global",
    "test_all_arguments_at_once[pyramid-parts of loops]",
    "test_inputs[2",
    "test_position_of_the_first_query",
    "test_gradients_are_the_same",
    "test_what_is_refused",
    "test_auto_takes_it",
    "test_a_compiler",
    "test_pattern[causal & (",
    "test_pattern[heads",
    "test_pattern[rows([5])",
    "test_argument[causal & (local",
    "test_the_native_",
    "test_attention_is_the_reference[causal & (select",
    "test_groups_that_take_queries_and_keys[causal",
)
"""Of the native kernel's tests those that run every day: it computes all patterns by the same code."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_backends.py" and "pallas_tpu" in item.name:
            item.add_marker(pytest.mark.exhaustive)  # `test_pallas_tpu.py` is what runs every day
        native = item.path.name == "test_cpu_native.py" or "cpu_native" in item.name
        if native and item.path.parent.name == "conformance" and not item.name.startswith(EVERYDAY):
            item.add_marker(pytest.mark.slow)
