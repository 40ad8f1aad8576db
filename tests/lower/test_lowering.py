"""From text to IR: what names and operators mean, on small dense masks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.diagnostics import SpecError
from patterndsl.frontend import load, parse
from patterndsl.ir.nodes import Union
from tests.property.test_syntax import CHANGES, SAMPLE

N = 12
Q, K = np.arange(N)[:, None], np.arange(N)[None, :]


def codes(text: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return caught.value.codes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where(q, k: k <= q)", K <= Q),
        ("where(row, column: column <= row)", K <= Q),
        ("where(q, k: 2 <= k < q)", (K >= 2) & (K < Q)),
        ("where(q, k: not q < k)", ~(Q < K)),
        ("where(q, k: q == k or k == 0 and q > 3)", (Q == K) | ((K == 0) & (Q > 3))),
        ("where(q, k: (q - k) % 3 == 0)", (Q - K) % 3 == 0),
        ("where(q, k: (k - q) // 4 == -1)", (K - Q) // 4 == -1),
        ("where(q, k: k in [0, 4:8, -1])", (K == 0) | ((K >= 4) & (K < 8)) | (N - 1 == K)),
        ("where(q, k: k not in [::5])", K % 5 != 0),
        ("where(q, k: abs(q - k) <= min(3, 2, n))", abs(Q - K) <= 2),
        ("where(q, k: max(q, k) < n // 2)", np.maximum(Q, K) < N // 2),
        ("where(q, k: k < ceil(sqrt(n)) + 2 ** 2 - log2(8))", K < 4 + 4 - 3),
        ("where(q, k: true) & where(q, k: not false)", np.ones((N, N), bool)),
        ("where(q, k: -k > -q)", -K > -Q),
        ("where(q, k: q != k)", Q != K),
        ("causal & local(3) | sinks(1)", ((K <= Q) & (abs(Q - K) < 3)) | (K < 1)),
        ("causal ^ sinks(2)", (K <= Q) ^ (K < 2)),
        ("~causal & local(4)", (K > Q) & (abs(Q - K) < 4)),
        ("causal - local(2) - sinks(1)", (K <= Q) & (abs(Q - K) >= 2) & (K >= 1)),
        ("columns([-1, 0])", (N - 1 == K) | (K == 0)),
        ("strided(ceil(sqrt(n)))", (Q - K) % 4 == 0),
        ("local(left=2, right=0)", (K <= Q) & (Q - K <= 2)),
        ("shift(self, by=-2)", Q - 2 == K),
        ("hierarchical(4, levels=auto) & none", np.zeros((N, N), bool)),
    ],
)
def test_masks(text: str, expected: np.ndarray) -> None:
    assert (parse(text).mask(N) == expected).all()


def test_sum_counts() -> None:
    counts = parse("causal + local(2) + self").slots(4).counts
    q, k = np.arange(4)[:, None], np.arange(4)[None, :]
    assert (counts == (k <= q).astype(int) + (abs(q - k) < 2) + (q == k)).all()


def test_statements_in_any_order() -> None:
    spec = parse(
        """
        pattern main = causal & (near | first(edge))
        pattern near = local(window)
        param window = edge + 1
        pattern first(m = 4) = where(q, k: k < m)
        param edge = 2
        """
    )
    assert (spec.mask(N) == ((K <= Q) & ((abs(Q - K) < 3) | (K < 2)))).all()
    assert (spec.mask(N, params={"edge": 1}) == ((K <= Q) & ((abs(Q - K) < 2) | (K < 1)))).all()
    assert (spec.mask(N, params={"window": 1}) == ((K <= Q) & ((abs(Q - K) < 1) | (K < 2)))).all()


def test_arguments_shadow_params_and_patterns() -> None:
    spec = parse(
        """
        param w = 1
        pattern near(w) = local(w)
        pattern f(near) = columns([near])
        pattern main = near(3) | f(5)
        """
    )
    assert (spec.mask(N) == ((abs(Q - K) < 3) | (K == 5))).all()


def test_main_with_defaults() -> None:
    assert (parse("pattern main(w = 2) = local(w)").mask(N) == (abs(Q - K) < 2)).all()


def test_heads_and_layers() -> None:
    spec = parse("heads { 0 => self; 1:3 => layers { every 2 => causal; _ => local(2) }; _ => full }")
    assert (spec.mask(N, head=0) == (Q == K)).all()
    assert (spec.mask(N, head=2, layer=1) == (K <= Q)).all()
    assert (spec.mask(N, head=1, layer=2) == (abs(Q - K) < 2)).all()
    assert spec.mask(N, head=3).all()


def test_h_is_the_head() -> None:
    spec = parse("shift(self, by=-h) | where(q, k: k == num_heads)")
    assert (spec.mask(N, head=3, num_heads=8) == ((K == Q - 3) | (K == 8))).all()


def test_inputs() -> None:
    doc = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    same = doc[:, None] == doc[None, :]
    for text in (
        "input doc: token\npattern main = same(doc)",
        "input doc: token\npattern main = where(q, k: doc[q] == doc[k])",
        "same(doc)",  # an expression alone has no place for a declaration
        "where(i, j: doc[i] == doc[j])",
    ):
        spec = parse(text)
        assert spec.inputs == ("doc",)
        assert (spec.mask(N, inputs={"doc": doc}) == same).all()


def test_imports(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "near.attn").write_text(
        'import "deeper.attn" as deeper\nparam w = 2\ninput doc: token\n'
        "pattern wide(by = 1) = local(w + by)\npattern main = local(w) & deeper"
    )
    (tmp_path / "parts" / "deeper.attn").write_text("causal")
    (tmp_path / "spec.attn").write_text(
        'import "parts/near.attn" as near\nimport "parts/near.attn" as again\nimport mistral\n'
        "pattern main = near | again.wide(by=3) - again.wide | mistral & none"
    )
    spec = load(tmp_path / "spec.attn")
    expected = (abs(Q - K) < 2) & (K <= Q) | (abs(Q - K) < 5) & (abs(Q - K) >= 3)
    assert (spec.mask(N, inputs={"doc": np.zeros(N, int)}) == expected).all()
    assert {"near.w", "again.w", "mistral.window"} <= set(spec.module.params)
    other = spec.mask(N, params={"near.w": 1}, inputs={"doc": np.zeros(N, int)})
    assert (other == ((Q == K) | (abs(Q - K) < 5) & (abs(Q - K) >= 3))).all()


def test_chains_are_flat() -> None:
    node = parse("causal | (local(2) | sinks(1)) | full").module.main
    assert isinstance(node, Union)
    assert len(node.members) == 4
    assert parse("causal | local(2)") == pd.causal | pd.local(2)


def test_spans_point_into_the_text() -> None:
    spec = parse("causal & strided(n - 12)", filename="file.attn")
    with pytest.raises(SpecError) as caught:
        spec.mask(12)
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert (span.text, str(span)) == ("strided(n - 12)", "file.attn:1:10")


def test_poisoned_names_give_no_second_error() -> None:
    assert codes("param w = sqrt(n)\npattern main = local(w) & strided(w)") == ("E301",)
    assert codes("pattern a = locl\npattern b = a | a\npattern main = b & a") == ("E101",)
    assert codes("pattern a = b\npattern b = a\npattern c = a\npattern main = c") == ("E106",)
    assert codes("import nothing_there as x\npattern main = x | x.y(4) | x.z") == ("E108",)
    assert codes("import axial\npattern main = axial.rows_only") == ("E105",)


def levels(first: str, each: str, last: str, count: int) -> str:
    """A file of definitions in which level i uses level j = i − 1."""
    lines = [each.replace("{i}", str(i)).replace("{j}", str(i - 1)) for i in range(1, count)]
    return "\n".join([first, *lines, last.replace("{i}", str(count - 1))])


@pytest.mark.parametrize(
    ("first", "each", "last", "expected"),
    [
        (
            "pattern a0(m) = local(m)",
            "pattern a{i}(m) = a{j}(m) ^ a{j}(m + 1)",
            "pattern main = a{i}(1)",
            "E504",
        ),
        ("pattern a0 = causal", "pattern a{i} = a{j} & ~a{j}", "pattern main = a{i}", "E504"),
        ("pattern a0(m) = local(m)", "pattern a{i}(m) = a{j}(m * m)", "pattern main = a{i}(n)", "E504"),
        ("param a0 = n", "param a{i} = a{j} * a{j}", "pattern main = local(a{i})", "E504"),
        ("param a0 = n", "param a{i} = a{j} + 1", "pattern main = local(a{i})", "E021"),
        ("pattern a0 = causal", "pattern a{i} = ~a{j}", "pattern main = a{i}", "E021"),
        ("import mistral as a0", "import mistral as a{i}", "pattern main = a{i}", "E111"),
        ("param a0 = n", "", "pattern main = local(" + "n + " * 200 + "n)", "E021"),
    ],
)
def test_expansion_is_bounded(first: str, each: str, last: str, expected: str) -> None:
    assert expected in codes(levels(first, each, last, 200))


def test_numbers_too_large_on_the_way() -> None:
    spec = parse("param a = n ** 100\npattern main = local(a * a * a * a)")
    assert (spec.mask(1) == [[True]]).all()
    with pytest.raises(SpecError) as caught:
        spec.mask(3)
    assert caught.value.codes == ("E309",)


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_mutated_specs_give_spec_errors_only(changes: list[tuple[int, int, str]]) -> None:
    text = SAMPLE.replace("lib/longformer.attn", "no_such_folder/longformer.attn")
    for at, cut, put in changes:
        text = text[:at] + put + text[at + cut :]
    try:
        parse(text).bind(8, head=1, num_heads=2)
    except SpecError as error:
        assert str(error)


PIECES = """
    causal local(4) hierarchical(2) strided(n) same(doc) n h 3 0 -1 w [0] [1:] doc doc[q] q k mix sqrt(n)
    lf lf.x "mean" true auto where(q,k:q<k) heads{_=>full} ~ - not ( ) | & ^ + * / // % ** and or in == <
"""
WORDS = st.sampled_from(PIECES.split())


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=7))
def test_random_words_give_spec_errors_only(words: list[str]) -> None:
    for text in (" ".join(words), f"param w = 2\npattern main = local({' '.join(words)})",
                 f"where(q, k: {' '.join(words)})"):  # fmt: skip
        try:
            parse(text).bind(8, head=1, num_heads=2)
        except SpecError as error:
            assert str(error)


def test_reading_a_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys; from patterndsl.frontend import parse; parse('causal & (local(128) | hierarchical(4))');"
        "print([m for m in ('jax', 'numpy', 'islpy', 'networkx', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_constructors_are_held_to_the_same_rules() -> None:
    """What lowering refuses in a text is refused when a spec built in Python is used."""
    tall = pd.hierarchical(factor=4)
    for spec, code in (
        (~tall, "E209"),
        (pd.causal ^ tall, "E209"),
        (pd.causal - tall, "E209"),
        (pd.transpose(tall), "E209"),
        (tall & pd.tree(2), "E210"),
        (pd.causal | pd.mix(pd.local(4), pd.full), "E216"),
    ):
        with pytest.raises(SpecError) as caught:
            spec.mask(64)
        assert caught.value.codes == (code,)
