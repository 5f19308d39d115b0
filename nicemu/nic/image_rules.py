"""What a firmware image may consist of. Rules about its text are checked before any of it runs.

An image imports :mod:`nicemu.firmware` and nothing else; its hooks and ``@jit`` helpers keep the rules of
:mod:`nicemu.nic.image_code`; no variable of it can change. A function whose name begins with ``_`` and that has no
``@jit`` is plain Python, for computing constants at load.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from typing import Any

from nicemu.nic import image_code
from nicemu.nic.image_source import API, STATE, Refusal, Source, name

PARAMETERS = "three positional parameters without defaults, such as (world, row, arg)"
CONSTANTS = "an int, a tuple of ints, or a record made by nic_state(...) or qp_state(...)"


def text_refusals(source: Source) -> Iterator[Refusal]:
    """What is wrong with the text."""
    made: set[str] = set()
    for node in source.tree.body:
        yield from _statement(source, node, made)
        if isinstance(node, ast.FunctionDef) and source.functions[node.name] is not node:
            yield Refusal(node.lineno, source.title(node), "one function of this name", "another in line "
                          f"{source.functions[node.name].lineno}")  # fmt: skip
    for assigned in source.hooks & (set(source.assigned) | set(source.imported)):
        node = source.assigned.get(assigned, source.tree.body[0])
        yield Refusal(node.lineno, f"hook {assigned}", "a function", f"`{ast.unparse(node)}`")
    for function in source.functions.values():
        yield from _signature(source, function)
    for function in source.compiled():
        yield from image_code.refusals(source, function)


def _statement(source: Source, node: ast.stmt, made: set[str]) -> Iterator[Refusal]:
    """``made``: the state calls so far."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        if modules not in ([API], ["__future__"]) or isinstance(node, ast.Import):
            yield Refusal(node.lineno, "import", f"from {API} import ...", ", ".join(modules))
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        call = source.state_call(node.value) if node.value else ""
        named = name(node.value.func) if isinstance(node.value, ast.Call) else ""
        if named in STATE and named not in source.imported:
            yield Refusal(node.lineno, named, f"from {API} import {named}", "a name that is not imported")
        if call in made:
            yield Refusal(node.lineno, call, "one record of an image", "a second one")
        made |= {call} - {""}
    elif not isinstance(node, ast.FunctionDef) and not isinstance(getattr(node, "value", None), ast.Constant):
        given = f"`{ast.unparse(node).splitlines()[0]}`"
        yield Refusal(node.lineno, "image", "imports, constants, state and functions", given)


def _signature(source: Source, node: ast.FunctionDef) -> Iterator[Refusal]:
    line, title = node.lineno, source.title(node)
    if node.name in source.hooks:
        if node.decorator_list:
            yield Refusal(line, title, "no decorator: it is compiled because of its name", _decorators(node))
        arguments = node.args
        others = (arguments.vararg, arguments.kwarg, *arguments.kwonlyargs, *arguments.defaults)
        if len(arguments.posonlyargs + arguments.args) != 3 or any(each is not None for each in others):
            yield Refusal(line, title, PARAMETERS, f"({ast.unparse(arguments)})")
    elif node.decorator_list and not source.is_helper(node):
        unknown = ", which is not imported" if name(node.decorator_list[0]) not in source.imported else ""
        yield Refusal(line, title, f"no decorator but @jit of {API}", _decorators(node) + unknown)
    elif not node.decorator_list and not node.name.startswith("_"):
        close = difflib.get_close_matches(node.name, sorted(source.hooks), n=1, cutoff=0.5)
        meant = f"did you mean {close[0]}?" if close else "see nicemu firmware hooks"
        yield Refusal(line, title, "the name of a hook, or @jit for a helper", f"a name that no hook has; {meant}")


def _decorators(node: ast.FunctionDef) -> str:
    return ", ".join(f"@{ast.unparse(each)}" for each in node.decorator_list)


def value_refusals(source: Source, values: dict[str, Any]) -> Iterator[Refusal]:
    """What is wrong with the values that the module's names have, once it has run."""
    for assigned, node in source.assigned.items():
        if not source.state_call(node) and not is_constant(values.get(assigned)):
            given = f"{type(values.get(assigned)).__name__} `{ast.unparse(node)}`"
            yield Refusal(node.lineno, assigned, CONSTANTS, given)
    constants = {key: value for key, value in values.items() if key in source.assigned or key in source.imported}
    constants = {key: value for key, value in constants.items() if is_constant(value)}
    for function in source.compiled():
        yield from image_code.endless_loops(source, function, constants)


def is_constant(value: Any) -> bool:
    """An int, or a tuple of such."""
    return isinstance(value, int) or (isinstance(value, tuple) and all(is_constant(each) for each in value))
