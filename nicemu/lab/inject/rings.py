"""Requests that change in their ring, between the program's write and the device's fetch.

The doorbell that follows a post is the moment: what the producer counter says is new is looked at, oldest first.
"""

from __future__ import annotations

from typing import Any

from nicemu.abi import rings
from nicemu.abi.rings import Doorbell
from nicemu.driver.qp import Qp
from nicemu.lab.inject.doorbells import Write, split
from nicemu.lab.inject.entry import Injected, around

BANKS = {"send": Doorbell.SEND, "recv": Doorbell.RECV}
SEND_FIELDS = {
    "opcode": (rings.SEND_OPCODE, 4), "flags": (rings.SEND_FLAGS, 4), "num_sge": (rings.SEND_NUM_SGE, 4),
    "imm": (rings.SEND_IMM, 4), "remote_addr": (rings.SEND_REMOTE_ADDR, 8), "rkey": (rings.SEND_RKEY, 4),
    "inline_length": (rings.SEND_INLINE_LENGTH, 4),
}  # fmt: skip
"""Offset and bytes."""
ELEMENT_FIELDS = {"addr": (rings.SGE_ADDR, 8), "length": (rings.SGE_LENGTH, 4), "lkey": (rings.SGE_LKEY, 4)}


def queue_of(pair: Qp, kind: str) -> tuple[Any, int, int]:
    """(bytes, slots, bytes of a slot) of a QP's ring, wherever it lies; the receive ring is in front of the send ring
    in memory of the program."""
    held = pair.placed.ring.view if pair.placed and pair.placed.ring else None
    if kind == "recv":
        return held or pair.recv_ring.view, pair.recv_slots, pair.recv_stride
    sends = held.part(pair.recv_slots * pair.recv_stride, pair.send_slots * pair.send_stride) if held else None
    return sends or pair.send_ring.view, pair.send_slots, pair.send_stride


def posted(pair: Qp, kind: str) -> int:
    """The producer counter: requests that the program has posted."""
    record = pair.placed.record.view if pair.placed and pair.placed.record else pair.record.view
    at = rings.DB_SEND if kind == "send" else rings.DB_RECV
    return int.from_bytes(bytes(record[at : at + 8]), "little", signed=True)


def place_of(what: Any) -> tuple[int, int]:
    """(offset in the request, bytes) of the field that changes."""
    if what.field in ELEMENT_FIELDS:
        offset, size = ELEMENT_FIELDS[what.field]
        header = rings.SEND_HEADER_BYTES if what.queue == "send" else rings.RECV_HEADER_BYTES
        return header + what.sge * rings.SGE_BYTES + offset, size
    return (rings.RECV_NUM_SGE, 4) if what.queue == "recv" else SEND_FIELDS[what.field]


def change(what: Any, ring: Any, at: int) -> None:
    """Write the value, or flip the bit."""
    offset, size = place_of(what)
    old = int.from_bytes(bytes(ring[at + offset : at + offset + size]), "little")
    new = what.value if what.value is not None else old ^ 1 << what.bit % (8 * size)
    ring[at + offset : at + offset + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")


def corrupt(entry: Injected) -> None:
    """Change requests as they are posted."""
    what, device = entry.what, entry.device
    looked_at: dict[Qp, int] = {}

    def look(number: int) -> None:
        pair = device.qps.get(number)
        if pair is None or what.qpn not in (None, number):
            return
        ring, slots, stride = queue_of(pair, what.queue)
        last = posted(pair, what.queue)
        first = looked_at.get(pair, 0)
        for count in range(first if first <= last else 0, last):  # a QP that was reset counts anew
            if entry.strikes():
                change(what, ring, (count & slots - 1) * stride)
        looked_at[pair] = last

    def corrupting(write: Write) -> Write:
        def write_doorbell(offset: int, value: int) -> None:
            bank, number = split(offset)
            if bank == BANKS[what.queue]:
                look(number)
            write(offset, value)

        return write_doorbell

    around(device.device, "write_doorbell", corrupting)
