"""Every public class, method, property and function says what it is."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

from nicemu import pyverbs

MODULES = [found.name for found in pkgutil.iter_modules(pyverbs.__path__) if not found.name.startswith("_")]


def undocumented(module: object) -> Iterator[str]:
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield from undocumented_members(name, value)
        elif inspect.isfunction(value) and not inspect.getdoc(value):
            yield name


def undocumented_members(name: str, cls: type) -> Iterator[str]:
    if not cls.__doc__:
        yield name
    for member in dir(cls):
        if not member.startswith("_") and member != "logger" and not hasattr(Exception, member):
            value = inspect.getattr_static(cls, member)
            if not documented(value):
                yield f"{name}.{member}"


def documented(value: object) -> bool:
    """Slots have their text in the `__slots__` of their class, everything else has it itself."""
    if inspect.ismemberdescriptor(value):
        slots = value.__objclass__.__slots__
        return isinstance(slots, dict) and bool(slots[value.__name__])
    return bool(getattr(getattr(value, "__func__", value), "__doc__", None))


@pytest.mark.parametrize("name", MODULES)
def test_nothing_public_lacks_a_docstring(name: str) -> None:
    module = importlib.import_module(f"nicemu.pyverbs.{name}")
    assert module.__doc__
    assert list(undocumented(module)) == []
