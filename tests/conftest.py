"""Options and helpers of the whole test suite."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

# Compiling is most of the suite's time, and code that is not optimised computes the same: a third of the time
# for fused loops in jaxlib 0.10, which later versions have no choice of. What XLA does for users is tested in
# `conformance/test_xla_options.py` and by the examples.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)

# What was built or measured on this machine, and stored for its user, must not change what the tests see.
_CACHE = tempfile.TemporaryDirectory(prefix="patterndsl-tests-")
os.environ["PATTERNDSL_CACHE"] = _CACHE.name
os.environ.pop("PATTERNDSL_RATES", None)

# In CI the same examples every time: a failure there is one that a run here shows, too.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")
    parser.addoption(
        "--exhaustive", action="store_true", help="also every pattern in every shape and schedule"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whole products of cases are run on demand; CI runs a part in which each case of each factor occurs."""
    if config.getoption("--exhaustive"):
        return
    left_out = [item for item in items if "exhaustive" in item.keywords]
    items[:] = [item for item in items if "exhaustive" not in item.keywords]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a golden file, or rewrites the file under ``--update-golden``."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, "utf-8")
        assert path.exists(), (
            f"{path.name} is missing: run pytest with --update-golden and read what it writes"
        )
        assert text == path.read_text("utf-8")

    return check
