"""`patterndsl run`, `compile` and `export`: what needs JAX."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

import patterndsl as pd
from patterndsl import trial as trials
from patterndsl.api import Attention
from patterndsl.trial import Shape, trial
from tests.cli import patterndsl

HEADLINE = "causal & (local(8) | global(tokens=[0]) | hierarchical(factor=4))"


def test_run_prints_error_time_and_tiles():
    result = patterndsl("run", "-e", HEADLINE, "-n", 100, "--repeat", 1, "--head-dim", 8, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["error"] < 2e-5 < found["largest"]
    assert found["compared"] == 100 and found["backend"] == "xla"
    plan = pd.compile(HEADLINE).plan(100, num_heads=4).stats()
    assert found["computed"] == plan.computed
    assert found["full_tiles"] + found["partial_tiles"] == plan.full_blocks + plan.partial_blocks
    assert found["seconds"] > 0 and found["dense_seconds"] > 0
    text = patterndsl("run", "-e", "causal", "-n", 20, "--repeat", 1, "--head-dim", 8).out
    for word in ("error", "tiles", "forward", "dense"):
        assert word in text


def test_run_takes_shapes_dtypes_inputs_and_params(tmp_path):
    spec = tmp_path / "a.attn"
    spec.write_text("param w = 4\ninput doc: token\npattern main = causal & local(w) & same(doc)\n")
    shape = ["--batch", 2, "--heads", 4, "--kv-heads", 2, "--head-dim", 8, "--dtype", "bfloat16"]
    given = [*shape, "-p", "w=3", "--input", "doc=packed:3", "--repeat", 1, "--json"]
    result = patterndsl("run", spec, "-n", 33, *given)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["shape"] == {
        "n": 33,
        "batch": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "dtype": "bfloat16",
    }
    assert found["error"] < 0.02


def test_float16_runs_without_dense_attention_of_that_dtype():
    result = patterndsl("run", "-e", "causal", "-n", 5, "--repeat", 1, "--head-dim", 8, "--dtype", "float16")
    assert result.code == 0, result.err
    assert "not timed: JAX's own has no float16" in result.out


def test_inputs_beyond_32_bits_are_refused(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([0, 2**32]))
    result = patterndsl("run", "-e", "same(doc)", "-n", 2, "--input", f"doc={tmp_path / 'ids.npy'}")
    assert result.code == 1 and "32 bits" in result.err


def test_run_takes_as_many_heads_as_the_spec_names():
    spec = "heads { 0:2 => local(4); 2:6 => causal }"
    result = patterndsl("run", "-e", spec, "-n", 16, "--repeat", 1, "--head-dim", 8, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["shape"]["heads"] == 6


def test_long_runs_are_compared_on_a_sample_and_not_timed_dense(monkeypatch):
    monkeypatch.setattr(trials, "ALL_ROWS", 1000)
    monkeypatch.setattr(trials, "AT_ONCE", 4 * 100 * 7)
    monkeypatch.setattr(trials, "DENSE_LOGITS", 1000)
    found = trial(pd.parse(HEADLINE), Shape(100, head_dim=8), repeats=1)
    assert found.compared == 35 and found.error < 2e-5
    assert found.dense_seconds is None and found.speedup is None
    assert "35 of 100 queries" in str(found) and "not timed" in str(found)


def test_a_wrong_result_shows(monkeypatch):
    """The comparison notices a single wrong value."""
    right = pd.Attention.__call__

    def wrong(self, q, k, v, **rest):
        return right(self, q, k, v, **rest).at[0, 57, 2, 3].add(0.25)

    monkeypatch.setattr(pd.Attention, "__call__", wrong)
    assert trial(pd.parse("causal"), Shape(64, head_dim=8), repeats=1).error == pytest.approx(0.25, rel=1e-4)
    monkeypatch.setattr(pd.Attention, "__call__", lambda self, q, k, v: right(self, q, k, v) * jax.numpy.nan)
    found = trial(pd.parse("causal"), Shape(64, head_dim=8), repeats=1)
    assert found.error == np.inf and json.loads(json.dumps(found.to_dict(), allow_nan=False))["error"] is None


@pytest.mark.parametrize("stage", ["ast", "ir", "plan", "jaxpr", "stablehlo"])
def test_compile_emits(stage, tmp_path):
    printed = patterndsl("compile", "-e", HEADLINE, "--emit", stage, "-n", 64, "--head-dim", 8)
    assert printed.code == 0, printed.err
    expected = {
        "ast": "Chain operators=('&',) @1:1",
        "ir": "hierarchical",
        "plan": "64 queries",
        "jaxpr": "f32[1,64,4,8]",
        "stablehlo": "tensor<1x64x4x8xf32>",
    }
    assert expected[stage] in printed.out
    path = tmp_path / "out"
    patterndsl("compile", "-e", HEADLINE, "--emit", stage, "-n", 64, "--head-dim", 8, "-o", path)
    if stage != "stablehlo":  # locations differ from run to run
        assert path.read_text() == printed.out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--emit", "llvm"], "none of ast, ir, sets, plan, jaxpr, stablehlo, mosaic"),
        (["--emit", "triton", "--target", "cuda-sm90"], "written for Mosaic"),
        (["--emit", "mosaic"], "give --target"),
        (["--report"], "give --target"),
        (["--report", "--emit", "ir"], "of kernels alone"),
        (["--emit", "plan", "--target", "abacus"], "none of cuda-sm90, tpu-v4"),
    ],
)
def test_compile_says_what_it_cannot_emit(given, told):
    result = patterndsl("compile", "-e", "causal", *given)
    assert result.code == 2 and told in result.err


def test_compile_for_a_device_that_is_not_there():
    """The plan, which backend it is for, and the program as the device's compiler gets it."""
    shape = ("-n", 64, "--head-dim", 64, "--target")
    plan = patterndsl("compile", "-e", "causal", *shape, "cuda-sm90", "--dtype", "bfloat16").out
    assert plan.startswith(
        "run by pallas_gpu on gpu (sm90)\n  not by cpu_native: it runs on the CPU, not on gpu"
    )
    plan = patterndsl("compile", "-e", "causal", *shape, "cuda-sm90").out
    assert (
        "run by xla" in plan and "not by pallas_gpu: it computes in bfloat16 and float16, not float32" in plan
    )
    for target in ("cuda-sm90", "tpu-v5e"):
        assert (
            "tensor<1x64x4x64xf32>"
            in patterndsl("compile", "-e", "causal", *shape, target, "--emit", "stablehlo").out
        )


def test_print_ir_after_all():
    result = patterndsl(
        "compile", "-e", "local(64) | local(128) | none", "--emit", "ir", "--print-ir-after-all"
    )
    assert result.code == 0
    assert result.err.count("// after ") > 3
    assert "64" in result.err and "64" not in result.out


def test_unknown_backend():
    result = patterndsl("run", "-e", "causal", "-n", 8, "--backend", "xlb")
    assert result.code == 1 and "did you mean `xla`?" in result.err


@pytest.mark.parametrize("verb", ["run", "export", "compile"])
def test_sizes_beyond_memory_are_refused(verb, tmp_path):
    given = ["-o", tmp_path / "f", "--emit", "jaxpr"] if verb == "compile" else ["-o", tmp_path / "f"]
    result = patterndsl(verb, "-e", "causal & local(8)", "-n", 10**12, *(given if verb != "run" else []))
    assert result.code == 2 and "GiB" in result.err


def test_a_run_beyond_the_memory_of_this_machine_is_refused(monkeypatch):
    from patterndsl.commands import run

    monkeypatch.setattr(run.os, "sysconf", lambda name: 1024)  # a mebibyte
    result = patterndsl("run", "-e", "causal", "-n", 4096)
    assert result.code == 2 and "smaller -n" in result.err


LOAD = """
import sys
sys.modules["patterndsl"] = None  # importing it fails
import jax, jax.export, numpy as np
from pathlib import Path
with np.load("given.npz") as given:
    arrays = dict(given)
expected = arrays.pop("expected")
exported = jax.export.deserialize(bytearray(Path("f.jaxexport").read_bytes()))
q, k, v = (arrays.pop(name) for name in "qkv")
out = exported.call(q, k, v, **arrays)
np.testing.assert_allclose(out, expected, atol=2e-5)
print("loaded", len(exported.vjp().out_avals) if exported.has_vjp() else 0)
"""


@pytest.mark.parametrize("vjp_order", [0, 1])
def test_export_loads_without_patterndsl(tmp_path, vjp_order):
    spec = tmp_path / "a.attn"
    spec.write_text(f"input doc: token\npattern main = same(doc) & ({HEADLINE})\n")
    path = tmp_path / "f.jaxexport"
    given = ["-n", 50, "--heads", 2, "--head-dim", 8, "--vjp-order", vjp_order, "-o", path]
    result = patterndsl("export", spec, *given)
    assert result.code == 0, result.err
    q, k, v = jax.random.normal(jax.random.key(0), (3, 3, 50, 2, 8))  # a batch of 3, which was not said
    doc = np.repeat(np.arange(5, dtype=np.int32), 10)[None].repeat(3, axis=0)
    expected = pd.reference(pd.load(spec), q, k, v, doc=doc)
    np.savez(tmp_path / "given.npz", q=q, k=k, v=v, doc=doc, expected=expected)
    command = [sys.executable, "-c", LOAD]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split()[1] == ("0" if vjp_order == 0 else "4")


def test_mixtures_take_gates(tmp_path):
    spec, path = "mix(causal & local(4), causal & hierarchical(2))", tmp_path / "f.jaxexport"
    shape = ["-n", 24, "--heads", 2, "--head-dim", 8]
    result = patterndsl("run", "-e", spec, *shape, "--repeat", 1, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["error"] < 2e-5
    assert "f32[1,24,2,2]" in patterndsl("compile", "-e", spec, *shape, "--emit", "jaxpr").out
    assert patterndsl("export", "-e", spec, *shape, "-o", path).code == 0
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 24, 2, 8))
    gates = jax.random.uniform(jax.random.key(1), (2, 24, 2, 2))
    out = jax.export.deserialize(bytearray(path.read_bytes())).call(q, k, v, gates=gates)
    np.testing.assert_allclose(out, pd.reference(spec, q, k, v, gates=gates), atol=2e-5)


def test_export_for_several_platforms(tmp_path):
    path = tmp_path / "f.jaxexport"
    given = ["-e", "causal & local(4)", "-n", 24, "-o", path]
    assert patterndsl("export", *given, "--platforms", "cpu,cuda,tpu").code == 0
    assert jax.export.deserialize(bytearray(path.read_bytes())).platforms == ("cpu", "cuda", "tpu")
    result = patterndsl("export", *given, "--platforms", "abacus")
    assert result.code == 2 and "abacus" in result.err


def test_export_needs_a_length_and_a_file():
    assert patterndsl("export", "-e", "causal", "-n", 8).code == 2
    assert patterndsl("export", "-e", "causal", "-o", "f").code == 2
    result = patterndsl("export", "-e", "causal", "-n", 8, "-o", "nowhere/f.jaxexport")
    assert result.code == 2 and "cannot be written" in result.err


def test_the_plan_reported_is_the_one_that_runs(monkeypatch):
    """Tiles are chosen for the operands, so heads of another size may have another plan."""
    ran = []
    pick = Attention.pick

    def noted(self, plan, target):
        ran.append(plan)
        return pick(self, plan, target)

    monkeypatch.setattr(Attention, "pick", noted)
    shape = Shape(1024, batch=2, heads=4, kv_heads=1, head_dim=8, dtype="bfloat16")
    trial(pd.parse("causal & (local(40) | strided(32))"), shape, backend="xla", repeats=1)
    assert len(ran) == 2 and ran[0] is ran[1]  # once to run it, once to name its backend
