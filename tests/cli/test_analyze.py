"""`patterndsl analyze` and `patterndsl diff`."""

import json

import numpy as np
import pytest

import patterndsl as pd
from tests.cli import patterndsl

HEADLINE = "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))"


def test_analyze_prints_the_report():
    result = patterndsl("analyze", "-e", HEADLINE, "-n", "512,1024")
    assert result.code == 0, result.err
    assert result.out == f"{pd.analyze(HEADLINE, (512, 1024))}\n"
    for word in ("Θ(n log n)", "1,024", "density", "computed / kept", "`hierarchical(4, leaf=128)`"):
        assert word in result.out


def test_analyze_json():
    found = json.loads(patterndsl("analyze", "-e", "causal & local(8)", "-n", "100,200", "--json").out)
    assert [x["n"] for x in found["lengths"]] == [100, 200]
    assert found["lengths"][0]["pairs"] == pd.parse("causal & local(8)").mask(100).sum()


def test_analyze_with_params_layers_heads_and_inputs(tmp_path):
    path = tmp_path / "a.attn"
    path.write_text(
        "param w = 4\ninput doc: token\n"
        "pattern main = same(doc) & causal & layers { every 2 => full; _ => local(w) }\n"
    )
    ids = np.repeat([0, 1], 50)
    np.save(tmp_path / "ids.npy", ids)
    given = ["-n", 100, "--input", f"doc={tmp_path / 'ids.npy'}", "--heads", 2, "--json"]
    for layer in (0, 1):
        result = patterndsl("analyze", path, *given, "-p", "w=3", "--layer", layer)
        assert result.code == 0, result.err
        mask = pd.load(path).mask(100, params={"w": 3}, layer=layer, inputs={"doc": ids})
        assert json.loads(result.out)["lengths"][0]["pairs"] == 2 * mask.sum()
    assert patterndsl("analyze", path, "-n", "100,200", "--input", "doc=packed:2").code == 2


def test_lengths_beyond_counting_are_answered():
    found = json.loads(patterndsl("analyze", "-e", HEADLINE, "-n", "10**12", "--json").out)
    (at,) = found["lengths"]
    assert at["pairs"]["lower"] <= 128 * 10**12 <= at["pairs"]["upper"]
    assert at["plan"] is None


@pytest.mark.parametrize(
    ("a", "b", "code", "words"),
    [
        ("local(64) | local(128)", "local(128)", 0, "the same for every n"),
        ("causal & local(3)", "local(left=2, right=0)", 0, "the same for every n"),
        ("local(3)", "causal & local(3)", 1, "at n = 2, query 0 sees key 1 only in A"),
        ("hierarchical(2)", "hierarchical(3)", 1, "different"),
        ("full", "where(q, k: k * k >= 0)", 0, "no difference up to n = 64"),
    ],
)
def test_diff(a, b, code, words):
    result = patterndsl("diff", "-e", a, "-e", b)
    assert result.code == code, result.err
    assert words in result.out
    answer = json.loads(patterndsl("diff", "-e", a, "-e", b, "--json").out)
    assert (answer["outcome"] == "different") == bool(code)


def test_diff_of_files_and_params(tmp_path):
    path = tmp_path / "a.attn"
    path.write_text("param w = 4\npattern main = causal & local(w)\n")
    assert patterndsl("diff", path, path).code == 0
    differ = patterndsl("diff", "-e", "causal & local(5)", path)  # files come first
    assert differ.code == 1 and f"only in B\n  A: {path}\n  B: causal & local(5)\n" in differ.out
    assert patterndsl("diff", path, "-e", "causal & local(5)", "-p", "w=5").code == 0
    assert patterndsl("diff", path, "-e", "locl(5)").code == 1


@pytest.mark.parametrize("arguments", [(), ("-e", "full"), ("-e", "a", "-e", "b", "-e", "c")])
def test_diff_takes_two(arguments):
    result = patterndsl("diff", *arguments)
    assert result.code == 2 and "two specs" in result.err
