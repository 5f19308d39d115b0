# mypy: ignore-errors
"""Tables of the bare loop, reached like those of the world."""

from enum import IntEnum

from nicemu import _jit
from nicemu.tables.record import record

IOTLB_LINES, PAYLOAD_BYTES, PAGE_BITS = 1024, 4096, 12


class Slot(IntEnum):
    """Positions in the table vector."""

    CONTROL = 0
    EVENT = 1
    PACKET = 2
    QP = 3
    SOURCE_LINE = 4
    TARGET_LINE = 5


CONTROL = record(
    "trap", "trap_row",
    "now", "pending", "sequence", "ran",
    "packet_free",           # head of the free list
    "payload",               # address of the packets' bytes
    "source_mtt", "target_mtt",  # addresses: a word a page, where its bytes are
    "port_free",
    "mtu", "message", "window", "ps_per_byte", "delay_ns",
    "copies",                # 1: payload is copied in and out
)  # fmt: skip
EVENT = record("time", "sequence", "kind", "row")
PACKET = record("psn", "va", "length", "last", "qp", "next")
QP = record("psn", "acked", "epsn", "msn", "left", "in_flight", "offset", "stopped")
LINE = record("page", "address")


def _rows(slot: Slot, dtype):
    return _jit.row_accessor(dtype, int(slot), CONTROL.fields["trap"][1])


control, event, packet, qp = (
    _rows(slot, dtype)
    for slot, dtype in ((Slot.CONTROL, CONTROL), (Slot.EVENT, EVENT), (Slot.PACKET, PACKET), (Slot.QP, QP))
)
source_line, target_line = _rows(Slot.SOURCE_LINE, LINE), _rows(Slot.TARGET_LINE, LINE)
