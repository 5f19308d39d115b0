"""pcapng, the capture file of Wireshark (IETF draft-ietf-opsawg-pcapng): what a capture writes, block by block.

One section, an interface a link with nanosecond stamps, an enhanced packet block a packet. Nothing is kept: memory does
not grow with the file. Little-endian, whatever the machine, so that one history is one file.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
ETHERNET = 1
COMMENT, IF_NAME, IF_DESCRIPTION, IF_TSRESOL, SHB_USERAPPL = 1, 2, 3, 9, 4
NANOSECONDS = 9
"""``if_tsresol``: ten to the minus so much, seconds."""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(options: list[tuple[int, bytes]]) -> bytes:
    """Options with the end mark; none at all are no bytes."""
    if not options:
        return b""
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


class PcapngWriter:
    """Writes to ``stream``; ``application`` and ``comment`` describe the section."""

    def __init__(self, stream: BinaryIO, application: str, comment: str = "") -> None:
        self.stream = stream
        self.interfaces = 0
        options = [(SHB_USERAPPL, application.encode())]
        if comment:
            options.insert(0, (COMMENT, comment.encode()))
        body = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)  # version 1.0, section of unknown length
        stream.write(_block(SECTION, body + _options(options)))

    def interface(self, name: str, description: str) -> int:
        """A new Ethernet interface; the answer is its number for ``packet``."""
        options = [(IF_NAME, name.encode()), (IF_DESCRIPTION, description.encode()), (IF_TSRESOL, bytes([NANOSECONDS]))]
        self.stream.write(_block(INTERFACE, struct.pack("<HHI", ETHERNET, 0, 0) + _options(options)))
        self.interfaces += 1
        return self.interfaces - 1

    def packet(self, interface: int, time_ns: int, frame: bytes, comments: tuple[str, ...] = ()) -> None:
        """One frame, whole; ``time_ns`` since the epoch."""
        head = struct.pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), len(frame))
        options = _options([(COMMENT, comment.encode()) for comment in comments])
        self.stream.write(_block(PACKET, head + _padded(frame) + options))
