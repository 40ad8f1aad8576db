"""Random syntax trees."""

from __future__ import annotations

from hypothesis import strategies as st

from patterndsl.syntax import ast
from patterndsl.syntax.flat import LEVEL

words = st.sampled_from(
    ["q", "k", "n", "w", "causal", "local", "doc", "a_1", "lf", "_x", "eve", "in_", "notes"]
)
names = words.map(ast.Name)
references = st.lists(names, min_size=1, max_size=2).map(lambda parts: ast.Reference(tuple(parts)))
numbers = st.one_of(st.integers(0, 20), st.integers(0, 10**15)).map(ast.Number)
strings = st.text(
    st.characters(codec="utf-8", exclude_characters='"\n\r', exclude_categories=["Cs"]), max_size=8
)
decimals = st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True).map(ast.Decimal)
leaves = st.one_of(numbers, decimals, strings.map(ast.String), st.booleans().map(ast.Bool), references)

_GROUPS: dict[int, list[str]] = {}
for _operator, _level in LEVEL.items():
    if _operator not in ("~", "not"):
        _GROUPS.setdefault(_level, []).append(_operator)


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


@st.composite
def chains(draw: st.DrawFn, inner: st.SearchStrategy) -> ast.Chain:
    group = draw(st.sampled_from(sorted(_GROUPS.values())))
    count = 1 if group == ["**"] else draw(st.integers(1, 4))
    operators = draw(st.lists(st.sampled_from(group), min_size=count, max_size=count))
    operands = draw(st.lists(inner, min_size=count + 1, max_size=count + 1))
    return ast.Chain(tuple(operators), tuple(operands))


def selectors() -> st.SearchStrategy:
    bound = numbers | references
    return st.one_of(
        bound.map(lambda b: ast.Selector("every", b)),
        bound.map(lambda b: ast.Selector("one", b)),
        st.builds(ast.Selector, st.just("range"), optional(bound), optional(bound)),
        st.just(ast.Selector("rest")),
    )


def extend(inner: st.SearchStrategy) -> st.SearchStrategy:
    def many(items: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(items, max_size=3).map(tuple)

    slices = st.builds(ast.Slice, optional(inner), optional(inner), optional(inner))
    return st.one_of(
        chains(inner),
        st.builds(ast.Unary, st.sampled_from(["-", "~", "not"]), inner),
        st.builds(ast.Call, references, many(st.builds(ast.Argument, optional(names), inner))),
        st.builds(ast.Index, references, inner),
        st.builds(ast.List, many(inner | slices)),
        st.builds(ast.Where, names, names, inner),
        st.builds(
            ast.Block, st.sampled_from(["heads", "layers"]), many(st.builds(ast.Case, selectors(), inner))
        ),
    )


expressions: st.SearchStrategy = st.deferred(lambda: st.one_of(leaves, leaves, extend(expressions)))
parameters = st.lists(st.builds(ast.Parameter, names, optional(expressions)), max_size=3).map(tuple)
statements = st.one_of(
    st.builds(ast.Import, strings.map(ast.String) | names, optional(names)),
    st.builds(ast.Param, names, expressions),
    st.builds(ast.Input, names, names),
    st.builds(ast.Pattern, names, optional(parameters), expressions),
)
files = st.one_of(
    expressions.map(lambda e: ast.File((), e)),
    st.lists(statements, min_size=1, max_size=4).map(lambda s: ast.File(tuple(s), None)),
)
