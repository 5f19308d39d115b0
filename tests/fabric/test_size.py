"""Ports and links reckon with as many bytes as the frames have."""

import pytest

from nicemu.wire.bth import Bth
from nicemu.wire.frame import Path, build
from nicemu.wire.opcode import CARRIES, CNP_BYTES, CNP_OPCODE, name_of
from nicemu.wire.size import ETHERNET, ip_bytes
from nicemu.wire.xth import XTH


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("opcode", sorted(CARRIES), ids=name_of)
@pytest.mark.parametrize("payload", [0, 1, 256, 1021])
def test_every_opcode_is_as_long_as_its_frame(opcode: int, payload: int, version: int) -> None:
    data = bytes(CNP_BYTES if opcode == CNP_OPCODE else payload)
    path = Path(source_mac=1, dest_mac=2, source=1, dest=2, version=version)
    frame = build(path, Bth(opcode=opcode), tuple(XTH[name]() for name in CARRIES[opcode]), data)
    own = 0 if opcode == CNP_OPCODE else payload
    assert len(frame.emit()) == ETHERNET + ip_bytes(opcode >> 5, opcode & 31, own, version == 6)
