"""Workloads: generator functions over pyverbs, one file a topic. Experiments name them; each row they yield is an
observation.

A workload takes a ``Bench`` and keyword parameters with defaults, which an experiment's YAML may set::

    def send_gather_fault(bench: Bench, *, pages: int = 1, iterations: int = 100) -> Iterator[Row]:
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, int | float | str]
"""One observation: columns by name. Times are virtual, names say the unit (``total_ns``)."""


class Workload(NamedTuple):
    """A workload and what an experiment may set: parameters with their defaults."""

    name: str
    function: Callable[..., Iterator[Row]]
    parameters: dict[str, Any]

    @property
    def text(self) -> str:
        """Its file."""
        return inspect.getsource(inspect.getmodule(self.function))  # type: ignore[arg-type]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


def shipped() -> dict[str, Workload]:
    """Every workload of this package by name, sorted."""
    found: dict[str, Workload] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= of_module(vars(importlib.import_module(f"{__name__}.{module.name}")))
    return dict(sorted(found.items()))


def of_text(text: str, file: str) -> dict[str, Workload]:
    """The workloads that a Python file defines. Raises what the file raises."""
    names: dict[str, Any] = {"__name__": "nicemu_workload", "__file__": file}
    exec(compile(text, file, "exec", dont_inherit=True), names)
    return of_module(names)


def of_module(names: Mapping[str, Any]) -> dict[str, Workload]:
    """The public generator functions that a module defines itself and whose first parameter is ``bench``."""
    own = {name: value for name, value in names.items()
           if inspect.isgeneratorfunction(value) and value.__module__ == names["__name__"]}  # fmt: skip
    public = {name: function for name, function in own.items() if not name.startswith("_")}
    return {name: Workload(name, function, _parameters(function)) for name, function in public.items()
            if next(iter(inspect.signature(function).parameters), "") == "bench"}  # fmt: skip


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    given = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}
