"""`import pyverbs` gives `nicemu.pyverbs`: the same module objects under both names."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ALIAS = "pyverbs"
TARGET = "nicemu.pyverbs"


class _Loader(Loader):
    """Hands out the module that exists under its own name, and leaves its `__spec__` as it was."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importlib has put the alias's there


class PyverbsFinder(MetaPathFinder):
    """Resolves `pyverbs` and every submodule that nicemu has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        ours = TARGET + fullname.removeprefix(ALIAS)
        try:
            found = importlib.util.find_spec(ours)
        except ModuleNotFoundError:
            found = None  # a package that pyverbs has not: whoever comes next may have it
        if found is None:
            return None  # the parent is ours, so its folder has no such file: ModuleNotFoundError
        package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _Loader(ours), origin=found.origin, is_package=package)


def install() -> None:
    """Make `pyverbs` mean ours from now on. Raises RuntimeError if the real one was imported before."""
    if any(isinstance(finder, PyverbsFinder) for finder in sys.meta_path):
        return
    imported = sys.modules.get(ALIAS)
    if imported is not None and imported.__name__ != TARGET:
        raise RuntimeError(f"pyverbs was imported from {imported.__file__} before nicemu could take its place")
    sys.meta_path.insert(0, PyverbsFinder())
