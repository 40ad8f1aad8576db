"""XLA with its own options, as users have them: the other tests compile without optimisation (conftest)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOME = "test_pattern and xla and (local or select) or test_run_time_inputs and xla"


@pytest.mark.slow
def test_as_users_compile() -> None:
    suite = Path(__file__).with_name("test_backends.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        "-k",
        SOME,
        suite,
    ]
    environment = {**os.environ, "XLA_FLAGS": ""}
    root = suite.parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.strip().rpartition("\n")[2].split()[0]) >= 8, done.stdout
