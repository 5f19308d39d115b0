"""Where two pyverbs differ: `differences(ours, theirs)` over the surfaces of `pyverbs_live` and `pyverbs_source`."""

import ast
import mmap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pyverbs_reasons import reason

Parameters = list[list[Any]] | None
Surfaces = Mapping[str, Any]

KINDS = ("classes", "functions", "constants", "enums")
EVERYWHERE = {"__init__", "__str__"}
"""What every class of Python has."""


class Difference(NamedTuple):
    """A name that differs; `reason` is empty if nobody has given one."""

    module: str
    name: str
    what: str
    reason: str


def differences(ours: Surfaces, theirs: Surfaces) -> Iterator[Difference]:
    """All of them, by module and name."""
    ours, theirs, values = _whole(ours), _whole(theirs), _values(ours)
    for module in sorted({*ours, *theirs}):
        if module not in theirs:
            found = [("(module)", "here only")]
        elif module not in ours:
            found = [("(module)", "missing here")]
        else:
            found = list(_in_module(ours[module], theirs[module], values))
        for name, what in sorted(found):
            yield Difference(module, name, what, reason(module, name))


def _whole(surfaces: Surfaces) -> Surfaces:
    """The surfaces with `inherited` in every class: the names that its bases give it."""
    classes = {name: cls for surface in surfaces.values() for name, cls in surface["classes"].items()}
    for cls in classes.values():
        above = [classes[base] for base in _ancestors(cls, classes)]
        cls["inherited"] = {name for base in above for name in (*base["methods"], *base["properties"])}
    return surfaces


def _ancestors(cls: Any, classes: Mapping[str, Any]) -> set[str]:
    direct = {base for base in cls["bases"] if base in classes}
    return direct.union(*(_ancestors(classes[base], classes) for base in direct))


def _in_module(ours: Any, theirs: Any, values: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    taken, offered = ({name for kind in KINDS for name in surface[kind]} for surface in (ours, theirs))
    yield from ((name, "missing here") for name in offered - taken - {*ours["borrowed"]})
    yield from ((name, "here only") for name in taken - offered - {*theirs["borrowed"]})
    yield from (
        (name, "missing here (of another module)") for name in {*theirs["borrowed"]} - taken - {*ours["borrowed"]}
    )
    for name in ours["functions"].keys() & theirs["functions"]:
        yield from _parameters(name, ours["functions"][name], theirs["functions"][name], values)
    for name in ours["classes"].keys() & theirs["classes"]:
        found = _in_class(ours["classes"][name], theirs["classes"][name], values)
        yield from ((name + member, what) for member, what in found)
    for name in ours["enums"].keys() & theirs["enums"]:
        yield from _members(name, ours["enums"][name], theirs["enums"][name])
    for name in ours["constants"].keys() & theirs["constants"]:
        here, there = ours["constants"][name], theirs["constants"][name]
        if there is not None and here != there:
            yield name, f"{here} here, {there} there"


def _in_class(ours: Any, theirs: Any, values: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for base in theirs["bases"]:
        if base not in ours["bases"]:
            yield "", f"is no {base} here"
    here, there = ({*cls["methods"], *cls["properties"]} for cls in (ours, theirs))
    yield from ((f".{name}", "missing here") for name in there - here - ours["inherited"] - {"__init__"})
    yield from ((f".{name}", "here only") for name in here - there - theirs["inherited"] - EVERYWHERE)
    for name in ours["properties"].keys() & theirs["properties"]:
        mine, other = ours["properties"][name], theirs["properties"][name]
        if other != "?" and mine != other:
            yield f".{name}", f"{_access(mine)} here, {_access(other)} there"
    for name in ours["methods"].keys() & theirs["methods"]:
        yield from _parameters(f".{name}", ours["methods"][name], theirs["methods"][name], values)


def _access(kind: str) -> str:
    return {"r": "read-only", "w": "write-only"}.get(kind, "read and write")


def _members(name: str, ours: Mapping[str, int], theirs: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    yield from ((f"{name}.{each}", "missing here") for each in theirs.keys() - ours.keys())
    yield from ((f"{name}.{each}", "here only") for each in ours.keys() - theirs.keys())
    if any(theirs.values()):  # a source distribution does not tell them
        for each in ours.keys() & theirs.keys():
            if ours[each] != theirs[each]:
                yield f"{name}.{each}", f"{ours[each]} here, {theirs[each]} there"


def _parameters(
    name: str, ours: Parameters, theirs: Parameters, values: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    if theirs is None or ours is None:
        return
    here, there = ([(each, kind, _default(value, values)) for each, kind, value in p] for p in (ours, theirs))
    if here != there:
        yield name, f"`{_text(here)}` here, `{_text(there)}` there"


def _text(parameters: list[tuple[str, str, str | None]]) -> str:
    written = (kind + each + ("" if default is None else f"={default}") for each, kind, default in parameters)
    return f"({', '.join(written)})"


def _default(text: str | None, values: Mapping[str, int]) -> str | None:
    """A default as a value, so that `e.IBV_QPT_UD` and 4 are the same."""
    if text is None:
        return None
    try:
        return repr(_evaluate(ast.parse(text, mode="eval").body, values))
    except (KeyError, ValueError, SyntaxError):
        return text


def _evaluate(node: ast.expr, values: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Attribute):
        return values[node.attr]
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _evaluate(node.left, values) | _evaluate(node.right, values)
    value = ast.literal_eval(node)
    return int(value) if isinstance(value, bool) else value


def _values(surfaces: Mapping[str, Any]) -> dict[str, int]:
    """Every constant that a default may name."""
    found = {name: value for name, value in vars(mmap).items() if isinstance(value, int)}
    for surface in surfaces.values():
        found.update(surface["constants"])
        for members in surface["enums"].values():
            found.update(members)
    return found
