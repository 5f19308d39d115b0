"""Texts about hooks and images, from :mod:`nicemu.nic.hook_table` and the images themselves: for the terminal, for
docs/firmware.md, and the template of a new image."""

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nicemu.config.paths import shipped, shipped_names
from nicemu.nic.firmware import HOOKS, Image
from nicemu.nic.hook_table import ASKS, FIELDS, Ask, text_of_values

TOLD = ("Imitates", "Source", "Inferred")
"""What the docstring of an image tells, each in a paragraph that begins with the word and a colon."""
WIDTH = 100


@cache
def answers(file: Path) -> dict[str, str]:
    """What the functions of an image return at their ends, as they say it: expressions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    ends = {node.name: node.body[-1] for node in functions}
    return {name: ast.unparse(last.value) for name, last in ends.items()
            if isinstance(last, ast.Return) and last.value}  # fmt: skip


def defaults() -> dict[str, str]:
    """What the image `default` answers."""
    return answers(shipped("firmware") / "default.py")


def _ask(name: str) -> Ask:
    return ASKS[HOOKS[name]]


def told(doc: str) -> dict[str, str]:
    """What a docstring tells by the words of :data:`TOLD`."""
    found = re.split(rf"^\s*({'|'.join(TOLD)}):", doc, flags=re.MULTILINE)[1:]
    return {key: " ".join(text.partition("\n\n")[0].split()) for key, text in zip(found[::2], found[1::2], strict=True)}


def docs() -> Iterator[tuple[str, str]]:
    """Name and docstring of each shipped image."""
    for name in shipped_names("firmware", ".py"):
        text = (shipped("firmware") / f"{name}.py").read_text(encoding="utf-8")
        yield name, ast.get_docstring(ast.parse(text)) or ""


def images_text() -> str:
    """Each shipped image with the first line of its docstring."""
    lines = [f"{name:<18} {(doc.splitlines() or [''])[0]}" for name, doc in docs()]
    return "\n".join(lines)


def images_markdown() -> str:
    """The table of images."""
    lines = ["| image | does | imitates | source | inferred |", "|---|---|---|---|---|"]
    for name, doc in docs():
        says = told(doc)
        cells = [f"`{name}`", (doc.splitlines() or [""])[0], *(says.get(key, "") for key in TOLD)]
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return "\n".join(lines)


def hooks_text(names: list[str]) -> str:
    """A paragraph for each hook."""
    return "\n\n".join(_paragraph(name, _ask(name)) for name in names)


def _paragraph(name: str, ask: Ask) -> str:
    reads = f"control.now {ask.reads}".split()
    told_of = {
        "asked when": ask.asked,
        "row": f"{ask.row}(world, row)",
        "arg": ask.arg,
        "answer": ask.answer,
        "in range": text_of_values(ask.values),
        "default": defaults()[name],
        "may read": ", ".join(f"{field} ({FIELDS[field]})" for field in reads),
    }
    lines = [f"{name}(world, row, arg)"]
    for key, text in told_of.items():
        indent = " " * 15
        lines.append(textwrap.fill(_plain(text), WIDTH, initial_indent=f"    {key:<11}",
                                   subsequent_indent=indent, break_on_hyphens=False))  # fmt: skip
    return "\n".join(lines)


def hooks_markdown() -> str:
    """The table of hooks, and that of the fields their rows have."""
    titles = ("hook", "asked when", "row", "arg", "answer", "in range", "default", "may read")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in HOOKS:
        ask = _ask(name)
        reads = " ".join(f"`{field}`" for field in ask.reads.split())
        cells = (f"`{name}`", ask.asked, ask.row.upper(), ask.arg, ask.answer, text_of_values(ask.values),
                 f"`{defaults()[name]}`", reads)  # fmt: skip
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    lines += ["", "| field | is |", "|---|---|"]
    lines += [f"| `{field}` | {_cell(text)} |" for field, text in FIELDS.items()]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


def changes_text(image: Image) -> str:
    """What an image decides itself, beside what `default` would answer."""
    lines = [
        f"  changes    {name:<21} {_plain(_ask(name).asked)} (default: {defaults()[name]})"
        for name, hook in HOOKS.items() if hook in image.own
    ]  # fmt: skip
    return "\n".join(lines or ["  changes    nothing: these are the defaults"])


HEAD = '''"""In one line: what this image does.

Imitates: the product or paper whose firmware this is.
Source: where what it does is described.
Inferred: what no source says and you chose.
"""

from nicemu.firmware import {names}

# State of its own: int64 fields, zero at first, of a QP again when it is reset. At most one record of each kind.
#     mine = qp_state("retries_seen")        mine(world, row).retries_seen += 1
#     whole = nic_state("faults_seen")       whole(world, qp(world, row).nic).faults_seen += 1
# Integers only; loops are `for ... in range(constant)`; a helper function has @jit above it.
# Each of these names is imported from nicemu.firmware first.
'''


def template(names: list[str]) -> str:
    """A new image: each hook with what it is asked, and the default's answer."""
    rows = {_ask(name).row for name in names}
    head = HEAD.format(names=", ".join(sorted({"control", *rows})))
    return head + "".join(_function(name, _ask(name)) for name in names)


def _function(name: str, ask: Ask) -> str:
    doc = [f"Asked when {ask.asked}.", "", f"row: {ask.row}(world, row). arg: {ask.arg}.", f"Answer: {ask.answer}.",
           f"In range: {text_of_values(ask.values)}."]  # fmt: skip
    doc += [f"May read: {ask.reads.replace(' ', ', ')}; control(world, 0).now is the time, ns."]
    wrapped = [textwrap.fill(_plain(line), WIDTH, subsequent_indent="    ", break_on_hyphens=False)
               for line in doc]  # fmt: skip
    text = textwrap.indent("\n".join(wrapped), "    ").lstrip()
    return f'\n\ndef {name}(world, row, arg):\n    """{text}\n    """\n    return {defaults()[name]}\n'


def documented(path: Path) -> dict[str, str]:
    """What stands in a document between `<!-- nicemu firmware NAME --markdown -->` and `<!-- end -->`."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"<!-- nicemu firmware (\w+) --markdown -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    return dict(found)
