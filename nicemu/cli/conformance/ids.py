"""The ids of the tests, read from the source without importing it: `test_odp.OdpTestCase.test_odp_rc_traffic`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ANY_DEVICE = r"^test_(?!cuda_|efa|mlx5_(?!timestamp\.))"
"""The tests that do not ask for a vendor's device: `test_mlx5_timestamp` does so in its name only."""


def list_ids(folder: Path, pattern: str = "") -> list[str]:
    """The ids of all tests in `folder` in which the regular expression `pattern` is found, in file order."""
    wanted = re.compile(pattern)
    found = (name for file in sorted(folder.glob("test_*.py")) for name in ids_in(file))
    return [name for name in found if wanted.search(name)]


def ids_in(file: Path) -> Iterator[str]:
    """The ids in one file. A class is a test case if a base of it, in this file or by name elsewhere, is one."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    for name, node in classes.items():
        if _is_test_case(node, classes):
            for method in _methods(node, classes):
                yield f"{file.stem}.{name}.{method}"


def _base_names(node: ast.ClassDef) -> list[str]:
    return [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]


def _is_test_case(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    for base in _base_names(node):
        if base in classes and base != node.name:
            if _is_test_case(classes[base], classes):
                return True
        elif "Test" in base or base == "Mlx5DevxTrafficBase":
            return True
    return False


def _methods(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[str]:
    """The test methods in order of their names, inherited ones of this file included, as unittest loads them."""
    names = {each.name for each in node.body if isinstance(each, ast.FunctionDef) and each.name.startswith("test")}
    for base in _base_names(node):
        if base in classes and base != node.name:
            names.update(_methods(classes[base], classes))
    return sorted(names)
