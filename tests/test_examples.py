"""The examples run: a few steps of training, and the headline at a small length."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(settings: str) -> dict[str, float]:
    common = "--width 32 --heads 2 --layers 1 --evaluations 1 "
    found: dict[str, float] = load("train_bytes").main((common + settings).split())
    return found


def test_training_learns_in_a_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found = train("--steps 8 --n 128 --batch 4 --rate 1e-2 ")
    assert set(found) == {"pattern", "dense", "window"}
    assert all(bits < 7.5 for bits in found.values()), "random bytes cost 8 bits"
    assert "bits per byte, held out" in capsys.readouterr().out


def test_the_pattern_model_is_the_dense_one_where_the_pattern_keeps_all() -> None:
    """At a length that the window covers, the three models are the same function."""
    found = train("--steps 3 --n 48 --batch 2 ")
    assert max(found.values()) - min(found.values()) < 1e-3


def test_headline_at_a_small_length() -> None:
    command = [sys.executable, EXAMPLES / "headline.py", "--n", "256"]
    as_users = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, env=as_users, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" in done.stdout and "Θ(n log n)" in done.stdout
