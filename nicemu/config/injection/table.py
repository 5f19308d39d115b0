"""The table of faults in `docs/faults.md`, made of the schema: `python -m nicemu.config.injection.table` prints it."""

import inspect
from typing import get_args

from nicemu.config.injection import KINDS
from nicemu.config.injection.device import PacketFault
from nicemu.config.injection.rules import Counted, Injection, OfNic, Timed

HEAD = "| fault | boundary | fields | on hardware a program sees | here | source |\n|---|---|---|---|---|---|"


def _summary(kind: type[Injection | PacketFault]) -> str:
    """The docstring's first paragraph, in one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def _fields(kind: type[Injection | PacketFault]) -> str:
    """Its own fields with their defaults, and which of the common ones it has."""
    if issubclass(kind, PacketFault):
        return "those of `impairments:`"
    common = {name for base in (Injection, OfNic, Timed, Counted) for name in base.model_fields}
    own = [(name, field) for name, field in kind.model_fields.items() if name not in common and name != "event"]
    words = [f"`{name}`" + ("" if field.is_required() else f" ({_said(field.default)})") for name, field in own]
    groups = ((OfNic, "nic"), (Counted, "*counted*"), (Timed, "*timed*"))
    return ", ".join(words + [name for base, name in groups if issubclass(kind, base)])


def _said(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def table() -> str:
    """A row for each kind of fault, in Markdown."""
    rows = [HEAD]
    for kind in KINDS:
        events = ", ".join(f"`{event}`" for event in get_args(kind.model_fields["event"].annotation))
        cells = (f"{events}: {_summary(kind)}", kind.boundary, _fields(kind), kind.hardware, kind.here, kind.source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
