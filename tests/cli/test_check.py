"""`patterndsl check`: errors, warnings, and what it must not load (its time is in benchmarks/startup.py)."""

import json
import subprocess
import sys

import pytest

from tests.cli import patterndsl

HEADLINE = "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))"


def codes(*arguments):
    result = patterndsl("check", "--json", *arguments)
    answer = json.loads(result.out)
    assert result.code == (0 if answer["ok"] else 1)
    return [d["code"] for d in answer["diagnostics"]]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("causal & local(3)", []),
        ("causal & ~causal", ["W001"]),
        ("causal & ~self", ["W002"]),
        ("causal & ~causal | local(3)", ["W001"]),  # a part, proved empty for every n
        ("local(100) & ~local(50) | self", []),  # a part that is empty at small n only
        ("none", ["W001"]),
        ("heads { 0:2 => causal & ~self; _ => full }", ["W002"]),
        ("layers { every 3 => none; _ => causal }", ["W001"]),
        ("hierarchical(2)", []),
        (HEADLINE, ["N001"]),
        ("causal & local(200) & ~local(100)", ["W002"]),  # empty at every small n, not at a larger one
        ("columns([100])", []),  # does not exist at small n
        ("axial(shape=[32, 32], axis=1)", []),  # exists at n = 1024 only
        ("input doc: token\npattern main = same(doc) & where(q, k: doc[q] == 7)", []),  # up to the data
        ("input doc: token\npattern main = same(doc) & ~same(doc)", ["W001"]),
        ("locl(3)", ["E101"]),
        ("local(3", ["E004"]),
        ("local(0) | strided(-1)", ["E302", "E302"]),
    ],
)
def test_what_check_finds(spec, expected):
    assert codes("-e", spec) == expected


def test_check_at_a_length():
    assert codes("-e", "columns([100])", "-n", "200") == []
    assert codes("-e", "columns([100])", "-n", "200,50") == ["E308"]


def test_check_with_params(tmp_path):
    path = tmp_path / "a.attn"
    path.write_text("param w = 4\npattern main = causal & local(w)\n")
    assert codes(path) == []
    assert codes(path, "-p", "w=0") == ["E302"]
    assert codes(path, "-p", "v=1") == ["E110"]


def test_a_note_points_at_its_place_and_names_the_better_spec():
    result = patterndsl("check", "-e", HEADLINE)
    assert result.code == 0
    assert "<expression>:1:11" in result.err and "`hierarchical(4, leaf=128)`" in result.err
    assert result.out == "<expression>: ok, 1 note\n"


def test_what_is_empty_for_every_n_is_said_so():
    assert "keeps nothing for any n" in patterndsl("check", "-e", "causal & ~causal").err


def test_check_reads_standard_input():
    assert patterndsl("check", "-", stdin=b"causal").code == 0
    assert patterndsl("check", "-", stdin=b"\xff\xfe").code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-e", "causal", "a.attn"),
        ("no such file.attn",),
        ("-e", "causal", "-n", "0"),
        ("-e", "causal", "-n", "many"),
        ("-e", "causal", "-n", "10**16"),
        ("-e", "causal", "-p", "w"),
        ("-e", "causal", "-p", "w=x"),
        ("-e", "causal", "-p", "w=1", "-p", "w=2"),
    ],
)
def test_wrong_usage(arguments):
    result = patterndsl("check", *arguments)
    assert result.code == 2 and "error: " in result.err


def test_check_loads_nothing_slow():
    code = (
        "import sys, patterndsl.cli as c; c.run_command(sys.argv[1:]); "
        "print(sorted({'jax', 'islpy', 'networkx', 'matplotlib', 'rich'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code, "check", "-e", HEADLINE]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
