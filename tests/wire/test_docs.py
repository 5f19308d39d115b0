"""``docs/wire.md``: its table of headers is that of the declarations."""

from pathlib import Path

from nicemu.wire.bth import Bth
from nicemu.wire.header import Header
from nicemu.wire.ip import Ethernet, Ipv4, Ipv6, Udp, Vlan
from nicemu.wire.xth import XTH

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"


def row(kind: type[Header]) -> str:
    """A header's line: fields in order with their bits, those that the ICRC takes as ones in italics."""
    names = [f"*{f.name}* {f.width}" if f.variant else f"{f.name} {f.width}" for f in kind.FIELDS]
    return f"| {kind.NAME} | {kind.SIZE} | {', '.join(names)} |"


def test_the_table_of_headers_is_the_declarations():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    expected = [row(kind) for kind in (Ethernet, Vlan, Ipv4, Ipv6, Udp, Bth, *XTH.values())]
    first = lines.index("| header | bytes | fields and their bits |") + 1
    assert lines[first : first + len(expected)] == expected
