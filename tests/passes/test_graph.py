"""The networkx view."""

from __future__ import annotations

import networkx as nx

import patterndsl as pd
from patterndsl.ir.graph import graph


def test_the_graph_is_the_tree_with_shared_parts_once() -> None:
    module = pd.parse("(causal & local(4)) - (strided(2) | causal)").module
    found = graph(module)
    assert nx.is_directed_acyclic_graph(found)
    assert sorted(op for _, op in found.nodes(data="op")) == [
        "causal", "difference", "intersection", "local", "strided", "union",
    ]  # fmt: skip
    assert [p for p, main in found.nodes(data="main") if main] == [module.main]
    assert found.nodes[module.main]["label"] == str(module.main)
    operands = sorted(found.out_edges(module.main, data="operand"), key=lambda e: e[2])
    assert [child for _, child, _ in operands] == list(module.main.children)


def test_an_operand_twice_is_two_edges() -> None:
    module = pd.parse("causal + causal").module
    found = graph(module)
    assert found.number_of_nodes() == 2 and found.number_of_edges() == 2
