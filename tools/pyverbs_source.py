"""What a source distribution of pyverbs offers, read from its Cython files without compiling them.

The form is that of `pyverbs_live.py`; the members of enums have no values (C headers have them): 0 stands there.
Cython is close enough to Python for its public names: a line says `def`, `cpdef`, `cdef class`, `property`, or binds
a name, and indentation says to what it belongs.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Surface = dict[str, Any]

FOLDER = re.compile(r"^[^/]+/rdma-core/pyverbs/(\w+)\.(pyx|pxd|py)$")
CLASS = re.compile(r"^(?:cdef )?class (\w+)(?:\(([\w., ]*)\))?:")
DEF = re.compile(r"^( *)(?:def|cpdef) (?:\w+ )?(\w+)\((.*)\):$")
OLD_PROPERTY = re.compile(r"^    property (\w+):")
CONSTANT = re.compile(r"^(_?[A-Z]\w*) *=[^=]")
LAMBDA = re.compile(r"^(\w+) = lambda (.*?):")
ENUM = re.compile(r"^    cpdef enum ?(\w*):")
MEMBER = re.compile(r"^        (\w+)")


def read(archive: Path) -> dict[str, Surface]:
    """The surfaces of all modules outside providers by name, from a `.tar.gz`."""
    texts: dict[str, dict[str, str]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            found = FOLDER.match(member.name)
            file = tar.extractfile(member) if found else None
            if found and file:
                texts.setdefault(found[1], {})[found[2]] = file.read().decode()
    return {
        name: module(files.get("pyx", files.get("py", "")), files.get("pxd", ""))
        for name, files in sorted(texts.items())
        if not name.startswith("_") and ("pyx" in files or "py" in files)
    }


def module(text: str, declarations: str = "") -> Surface:
    """The surface of one module: the text of its `.pyx` or `.py`, and of its `.pxd`."""
    surface: Surface = {"functions": {}, "classes": {}, "enums": {}, "constants": {}, "borrowed": []}
    _read_enums(declarations, surface)
    owner: Surface | None = None
    decorators: list[str] = []
    written: str | None = None  # the property of the old form that is open
    for line in _logical_lines(text):
        if line.strip() and not line.startswith((" ", "@")):
            owner = None
        if begins := CLASS.match(line):
            owner = surface["classes"][begins[1]] = {"bases": _bases(begins[2]), "methods": {}, "properties": {}}
        elif line.strip().startswith("@"):
            decorators.append(line.strip()[1:])
            continue
        elif (begins := OLD_PROPERTY.match(line)) and owner is not None:
            written = begins[1]
            owner["properties"][written] = ""
        elif begins := DEF.match(line):
            _define(surface, owner, written, begins, decorators)
            written = written if len(begins[1]) == 8 else None
        elif begins := LAMBDA.match(line):
            surface["functions"][begins[1]] = parameters(begins[2])
        elif begins := CONSTANT.match(line):
            surface["constants"][begins[1]] = None
        decorators = []
    return surface


def _define(
    surface: Surface, owner: Surface | None, written: str | None, begins: re.Match[str], decorators: list[str]
) -> None:
    indent, name = len(begins[1]), begins[2]
    if indent == 0 and not name.startswith("_"):
        surface["functions"][name] = parameters(begins[3])
    elif owner is None:
        return
    elif indent == 8 and written:
        owner["properties"][written] += {"__get__": "r", "__set__": "w"}.get(name, "")
    elif indent == 4 and "property" in decorators:
        owner["properties"][name] = "r"
    elif indent == 4 and f"{name}.setter" in decorators:
        owner["properties"][name] += "w"
    elif indent == 4 and (not name.startswith("_") or name in ("__init__", "__str__", "__getitem__", "_copy_data")):
        found = parameters(begins[3])
        owner["methods"][name] = found if "staticmethod" in decorators else found[1:]


def _bases(text: str | None) -> list[str]:
    return [base.strip() for base in (text or "object").split(",") if base.strip()]


def _read_enums(text: str, surface: Surface) -> None:
    inside: str | None = None
    for line in text.splitlines():
        if begins := ENUM.match(line):
            inside = begins[1]
            if inside:
                surface["enums"][inside] = {}
        elif line.strip() and not line.startswith("        "):
            inside = None
        elif inside is not None and (begins := MEMBER.match(line)):
            if inside:
                surface["enums"][inside][begins[1]] = 0
            else:
                surface["constants"][begins[1]] = None


def _logical_lines(text: str) -> Iterator[str]:
    """Lines with docstrings and comments taken out, and what goes on inside brackets put on one line."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", text)
    line, depth = "", 0
    for each in text.splitlines():
        each = re.sub(r"  *#.*$|^#.*$", "", each) if "#" in each else each
        line = line + " " + each.strip() if line else each.rstrip()
        code = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
        depth = sum(map(code.count, "([{")) - sum(map(code.count, ")]}"))
        if depth <= 0 and not line.endswith("\\"):
            yield line.rstrip()
            line = ""


def parameters(text: str) -> list[list[str | None]]:
    """`unsigned int port, PD pd not None, flags=e.X, **kwargs` as [[name, kind, default]...]."""
    found: list[list[str | None]] = []
    for each in _split(text):
        declared, _, default = each.partition("=")
        declared = declared.replace("not None", "").replace("or None", "").strip()
        stars = "**" if declared.startswith("**") else "*" if declared.startswith("*") else ""
        name = re.split(r"[ *]", declared)[-1]
        found.append([name, stars, default.strip() or None])
    return found


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]
