"""The IR as a networkx graph, for tools that want one."""

from __future__ import annotations

import networkx as nx

from patterndsl.ir.mlir import NAMES
from patterndsl.ir.nodes import Module, Node, Pattern
from patterndsl.ir.normal import postorder


def graph(module: Module) -> nx.MultiDiGraph:
    """The main pattern's graph: an edge from each pattern to each operand, in order (attribute ``operand``).

    Nodes are the IR nodes themselves (shared ones once), operands before users, with attributes ``op`` (the
    operation's name), ``label`` (its text as a spec writes it) and ``main`` (whether it is the whole).
    """
    found = nx.MultiDiGraph()
    for p in postorder(module.main):
        found.add_node(p, op=_name(p), label=str(p), main=p is module.main)
        for i, child in enumerate(p.children):
            found.add_edge(p, child, operand=i)
    return found


def _name(p: Node) -> str:
    return p.name if isinstance(p, Pattern) else NAMES[type(p)]
