"""The text of a firmware image: its syntax tree, and what the names in it mean."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nicemu.tables import records

API = "nicemu.firmware"
STATE = ("nic_state", "qp_state")


class Refusal(NamedTuple):
    """Something that is wrong: where, of what, what was expected and what is there."""

    line: int
    what: str
    expected: str
    given: str


class Source:
    """An image's syntax tree and the names in it."""

    def __init__(self, tree: ast.Module, hooks: Iterable[str]) -> None:
        self.tree, self.hooks = tree, frozenset(hooks)
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == API]
        self.imported = {name.asname or name.name: name.name for node in imports for name in node.names}
        self.assigned = {
            target.id: node.value
            for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
            for each in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for target in ast.walk(each) if isinstance(target, ast.Name)
        }  # fmt: skip
        self.accessors = {local: _fields(meant) for local, meant in self.imported.items() if is_row(meant)}
        self.accessors |= {
            local: _literals(value.args) for local, value in self.assigned.items()
            if isinstance(value, ast.Call) and self.state_call(value)
        }  # fmt: skip
        """Field names by the local name of a row accessor; None: not known."""

    def compiled(self) -> Iterator[ast.FunctionDef]:
        """Hooks and ``@jit`` helpers."""
        return (node for node in self.functions.values() if node.name in self.hooks or self.is_helper(node))

    def is_helper(self, node: ast.FunctionDef) -> bool:
        """It has ``@jit`` and nothing else."""
        return [self.imported.get(name(each)) for each in node.decorator_list] == ["jit"]

    def state_call(self, node: ast.AST) -> str:
        """``nic_state`` or ``qp_state`` if this is a call of it."""
        called = self.imported.get(name(node.func), "") if isinstance(node, ast.Call) else ""
        return called if called in STATE else ""

    def title(self, node: ast.FunctionDef) -> str:
        """What a message calls a function."""
        return f"{'hook' if node.name in self.hooks else 'function'} {node.name}"


def name(node: ast.AST) -> str:
    """A plain name, else nothing."""
    return node.id if isinstance(node, ast.Name) else ""


def names_stored(function: ast.FunctionDef) -> set[str]:
    """Names that are the function's own."""
    stored = {each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return stored | {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}


def is_row(meant: str) -> bool:
    """A name of the API that is an accessor: the lower-case name of a record."""
    return meant.islower() and isinstance(getattr(records, meant.upper(), None), np.dtype)


def _fields(table: str) -> frozenset[str] | None:
    return frozenset(getattr(records, table.upper()).names)


def _literals(nodes: list[ast.expr]) -> frozenset[str] | None:
    """The strings that these are, if they are."""
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return frozenset(texts) if len(texts) == len(nodes) else None
