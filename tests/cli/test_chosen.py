"""Every verb on specs that choose from q and k: an answer, or an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.grammar import lib
from tests.cli import patterndsl

LIBRARY = Path(lib.__file__).parent
PUBLISHED = [LIBRARY / f"{name}.attn" for name in ("minference", "moba", "quest", "reformer", "routing")]
SMALL = 'causal & (select(2, 8, among=causal - chunked(8), per="block") | vertical_slash(2, 3) | lsh(4))'


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_specs(path: Path) -> None:
    layer = ("--layer", 3)  # the first of Quest are dense
    checked = patterndsl("check", path, "-n", "1,4096")
    notes = checked.err.count("note[N002]")  # of clusters under `causal`
    assert checked.code == 0 and checked.err.count("[") == notes == (path.stem == "routing")
    assert "ok" in checked.out
    assert patterndsl("fmt", "--check", path).code == 0
    report = json.loads(patterndsl("analyze", path, *layer, "-n", "4096,1000000000000", "--json").out)
    assert "bounds" in " ".join(report["lengths"][0]["notes"] + report["notes"])
    for stage in ("ast", "ir", "sets", "plan"):
        assert patterndsl("compile", path, "--emit", stage, "-n", 4096, *layer).code == 0
    assert patterndsl("diff", path, path).out == "the same for every n\n"
    shown = patterndsl("show", path, "-n", 64, *layer, "--head", 4)  # the first of Routing see a window
    assert shown.code == 1 and "E406" in shown.err and "patterndsl run" in shown.err


def test_a_bound_on_what_is_kept() -> None:
    report = pd.analyze("causal & select(2, 16, among=causal - chunked(16))", n=[256, 10**6])
    assert report.at(256).pairs == (0, 256 * 32) and report.at(10**6).pairs == (0, 10**6 * 32)
    assert str(report.growth) == "O(n)"


def test_what_differs_is_not_known() -> None:
    result = patterndsl("diff", "-e", "causal & select(2, 8)", "-e", "causal & select(3, 8)")
    assert result.code == 0 and "operands=(q, k)" in result.out
    same = patterndsl("diff", "-e", "causal & select(2, 8)", "-e", "select(2, block=8) & causal & full")
    assert same.out == "the same for every n\n"


def test_run_compares_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patterndsl.trial.AT_ONCE", 4 * 90 * 20)  # by parts: the choice is that of all
    result = patterndsl("run", "-e", SMALL, "-n", 90, "--repeat", 1, "--head-dim", 8, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["error"] < 2e-5 < found["largest"] and found["compared"] == 90


@pytest.mark.slow
def test_centroids(tmp_path: Path) -> None:
    """Drawn, from a file, and as an argument of the artifact."""
    spec = "causal & (cluster(3, 8, centroids=mu) | self)"
    shape = ["-n", 40, "--heads", 2, "--head-dim", 8]
    assert "(or `mu=random:16`)" in patterndsl("run", "-e", spec, *shape).err
    assert "E403" in patterndsl("run", "-e", spec, *shape, "--input", "mu=random:4").err
    assert patterndsl("run", "-e", spec, *shape, "--input", "mu=random:x").code == 2
    mu = np.random.default_rng(0).standard_normal((2, 3, 8), np.float32)
    np.save(tmp_path / "mu.npy", mu)
    for value in ("random:3", tmp_path / "mu.npy"):
        result = patterndsl("run", "-e", spec, *shape, "--repeat", 1, "--json", "--input", f"mu={value}")
        assert result.code == 0 and json.loads(result.out)["error"] < 2e-5, result.err
        assert patterndsl("analyze", "-e", spec, "-n", 40, "--input", f"mu={value}").code == 0
    assert "E406" in patterndsl("show", "-e", spec, "-n", 40).err
    path = tmp_path / "f.jaxexport"
    assert patterndsl("export", "-e", spec, *shape, "-o", path).code == 0
    q, k, v = jax.random.normal(jax.random.key(0), (3, 3, 40, 2, 8))
    out = jax.export.deserialize(bytearray(path.read_bytes())).call(q, k, v, mu=mu)
    np.testing.assert_allclose(out, pd.reference(spec, q, k, v, mu=mu), atol=2e-5)


def test_export(tmp_path: Path) -> None:
    path, shape = tmp_path / "f.jaxexport", ["-n", 40, "--heads", 2, "--head-dim", 8]
    assert "top_k" in patterndsl("compile", "-e", SMALL, *shape, "--emit", "jaxpr").out
    result = patterndsl("export", "-e", SMALL, *shape, "-o", path)
    assert result.code == 0, result.err
    q, k, v = jax.random.normal(jax.random.key(0), (3, 3, 40, 2, 8))  # a batch of 3, which was not said
    out = jax.export.deserialize(bytearray(path.read_bytes())).call(q, k, v)
    np.testing.assert_allclose(out, pd.reference(SMALL, q, k, v), atol=2e-5)
