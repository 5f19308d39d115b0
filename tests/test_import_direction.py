"""Imports point down only. The table names each layer of docs/architecture.md once, with what it may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nicemu

PACKAGE = Path(nicemu.__file__).parent

BOTTOM = {"_jit", "config", "abi", "tables", "memory", "timeline", "wire"}

MAY_IMPORT: dict[str, set[str]] = {
    "_jit": set(),
    "config": set(),
    "abi": {"_jit"},
    "tables": {"_jit", "abi"},
    "memory": {"_jit", "abi", "tables"},
    "timeline": {"_jit", "tables"},
    "wire": {"_jit"},
    "mm": BOTTOM,
    "secondary_mmu": {"mm"} | BOTTOM,
    "fabric": {"_jit", "tables", "wire"},
    "nic": {"_jit", "abi", "tables", "memory", "wire", "fabric"},
    "firmware": {"_jit", "nic", "fabric", "tables"},
    "driver": {"nic", "mm"} | BOTTOM,
    "uverbs": {"driver"} | BOTTOM,
    "pyverbs": {"uverbs", "abi"},
    "observe": {"_jit", "config", "tables", "abi", "wire"},
    "lab": {"observe", "pyverbs", "uverbs", "driver", "nic", "fabric", "secondary_mmu", "mm"} | BOTTOM,
    "check": {"lab", "observe", "uverbs", "driver", "nic", "fabric", "mm", "secondary_mmu"} | BOTTOM,
    "_alias": set(),
    "_tracebacks": set(),
    "_program": {"_tracebacks", "config"},
    "workloads": {"pyverbs", "observe", "lab"},
    "experiment": {"workloads", "lab", "uverbs", "nic", "observe", "config", "_alias", "_program"},
    "bench": {"workloads", "mm", "lab", "uverbs", "pyverbs", "config", "memory", "tables", "_jit"},
    "cli": {"bench", "check", "experiment", "workloads", "lab", "nic", "observe", "config", "pyverbs", "uverbs"}
    | {"_alias", "_program", "_tracebacks"},
    "pytest_plugin": {
        "cli",
        "lab",
        "config",
        "pyverbs",
        "uverbs",
        "_alias",
        "_tracebacks",
    },  # cli: rdma-core's suite is set up there
    "__main__": {"cli"},
    "__init__": set(),
}


def layer_of(module: str) -> str:
    """`nicemu.nic.qp` -> `nic`; the package itself, which holds only the version, belongs to no layer."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(file: Path, package: str) -> Iterator[tuple[str, int]]:
    """The nicemu modules that a file imports anywhere in it, with their lines. `package` resolves relative imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            if module == "nicemu":
                yield from ((f"nicemu.{name.name}", node.lineno) for name in node.names)
            else:
                yield module, node.lineno


def violations(file: Path) -> Iterator[str]:
    relative = file.relative_to(PACKAGE)
    layer = relative.parts[0].removesuffix(".py")
    package = ".".join(["nicemu", *relative.parts[:-1]])
    for module, line in imported(file, package):
        target = layer_of(module) if module.split(".")[0] == "nicemu" else layer
        if target in ("", "__version__", layer):
            continue
        if target not in MAY_IMPORT.get(layer, set()):
            yield f"nicemu/{relative}:{line}: {layer} imports {module}"


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_a_layer_imports_only_what_lies_below(layer: str) -> None:
    single = PACKAGE / f"{layer}.py"
    files = [single] if single.is_file() else sorted((PACKAGE / layer).rglob("*.py"))
    assert [line for file in files for line in violations(file)] == []


def test_every_file_belongs_to_a_layer() -> None:
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__pycache__", "_configs", "_firmware"} <= set(MAY_IMPORT)


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []

    def visit(layer: str, path: tuple[str, ...]) -> None:
        assert layer not in path, f"cycle: {' -> '.join((*path, layer))}"
        if layer not in order:
            for below in sorted(MAY_IMPORT[layer]):
                visit(below, (*path, layer))
            order.append(layer)

    for layer in MAY_IMPORT:
        visit(layer, ())


def test_the_check_sees_relative_and_nested_imports(tmp_path: Path) -> None:
    file = tmp_path / "probe.py"
    file.write_text("def f():\n    from ..mm import fault\n    from . import qp\n    import nicemu.lab.run\n")
    assert list(imported(file, "nicemu.nic")) == [("nicemu.mm", 2), ("nicemu.nic", 3), ("nicemu.lab.run", 4)]
