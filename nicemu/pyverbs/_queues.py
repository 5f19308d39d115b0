"""The producer's side of QPs and SRQs: writing work requests into their rings.

Order of the stores: the entries, then the counter in the doorbell record; the caller rings the doorbell last.
"""

from __future__ import annotations

import errno
import struct
from types import SimpleNamespace
from typing import Any

from nicemu.abi.rings import (
    DB_RECV,
    DB_SEND,
    DB_SRQ_CONSUMER,
    DB_SRQ_PRODUCER,
    RECV_HEADER_BYTES,
    RECV_WQE,
    SEND_HEADER_BYTES,
    SEND_INLINE_LENGTH,
    SEND_NUM_SGE,
    SEND_OPCODE,
    SEND_REMOTE_ADDR,
    SGE,
    SGE_BYTES,
)
from nicemu.abi.verbs import QpType, SendFlag, WrOpcode
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._qp_operations import OPCODES
from nicemu.uverbs.messages import QpResponse
from nicemu.uverbs.srq_messages import SrqResponse

_REQUEST = struct.Struct("<III")  # opcode, flags, num_sge
_WORD = struct.Struct("<I")
_ADDRESS = struct.Struct("<Q")
_INLINE = int(SendFlag.INLINE)
_ATOMICS = (int(WrOpcode.ATOMIC_CMP_AND_SWP), int(WrOpcode.ATOMIC_FETCH_AND_ADD))
_COUNTER_BYTES = 8


class _Queue:
    """A ring of `stride`-byte slots; `head` counts entries written, `tail` entries known to be done with.

    At most `max_wr` are outstanding: what the program asked for, even if the ring has more slots.
    """

    __slots__ = ("_record", "_word", "generation", "head", "mask", "max_sge", "max_wr", "ring", "stride", "tail")

    def __init__(self, ring: memoryview, slots: int, stride: int, record: memoryview, offset: int) -> None:
        self.ring, self.mask, self.stride = ring, slots - 1, stride
        self._record, self._word = record.cast("q"), offset // _COUNTER_BYTES  # one store for the counter
        self.head = self.tail = 0
        self.max_wr = self.max_sge = 0
        self.generation = _kernel.generation
        """Of the process whose memory the device reads."""

    def retire(self, counter: int) -> None:
        """The entry whose counter has these low 32 bits is done, and with it all before it."""
        self.tail += counter + 1 - self.tail & 0xFFFFFFFF

    def publish(self) -> None:
        """Show the device what has been written."""
        self._record[self._word] = self.head

    def reset(self) -> None:
        """Forget everything, as the device does when the QP goes to RESET."""
        self.head = self.tail = 0
        self.publish()


class RecvQueue(_Queue):
    """A receive queue."""

    __slots__ = ()

    @classmethod
    def of(cls, response: QpResponse) -> RecvQueue | None:
        """A QP's own, if it has one."""
        if not response.recv_slots:
            return None
        queue = cls(response.recv_ring, response.recv_slots, response.recv_stride, response.record, DB_RECV)
        queue.max_wr, queue.max_sge = response.caps.max_recv_wr, response.caps.max_recv_sge
        return queue

    def write(self, wr: Any) -> int:
        """Write one request; 0, or ENOMEM (full), or EINVAL (too many SGEs)."""
        if self.head - self.tail >= self.max_wr:
            return errno.ENOMEM
        image, sges = wr._image, wr._sges
        size = RECV_WQE.unpack_from(image)[1] * SGE_BYTES
        if size > self.max_sge * SGE_BYTES or size > len(sges):
            return errno.EINVAL
        at = (self.head & self.mask) * self.stride
        self.ring[at : at + RECV_HEADER_BYTES + size] = image + (sges if size == len(sges) else sges[:size])
        self.head += 1
        return 0


class SharedQueue(RecvQueue):
    """An SRQ. The device says in the record how many entries it has taken, and a taken entry's slot is free."""

    __slots__ = ("_taken",)

    def __init__(self, response: SrqResponse) -> None:
        super().__init__(response.ring, response.slots, response.stride, response.record, DB_SRQ_PRODUCER)
        self._taken = DB_SRQ_CONSUMER // _COUNTER_BYTES
        self.resize(response)

    def resize(self, response: SrqResponse) -> None:
        """Go on in this ring, at the same counters."""
        self.ring, self.mask = response.ring, response.slots - 1
        self.max_wr, self.max_sge = response.max_wr, response.max_sge

    def write(self, wr: Any) -> int:
        """As for a receive queue."""
        self.tail = self._record[self._taken]
        return super().write(wr)


class SendQueue(_Queue):
    """A send queue. `process` reads the data of inline sends."""

    __slots__ = ("max_inline", "opcodes", "process")

    @classmethod
    def of(cls, response: QpResponse, qp_type: int, process: Any, software: Any) -> SendQueue | None:
        """A QP's, if it has one; what its requests are checked for is the library's (`config.SoftwareProfile`)."""
        if not response.send_slots:
            return None
        kind = QpType.RC if software.posts_any_opcode and qp_type == QpType.UC else qp_type
        return (AtomicsChecked if software.checks_atomics else cls)(response, kind, process)

    def __init__(self, response: QpResponse, qp_type: int, process: Any) -> None:
        super().__init__(
            response.send_ring, response.send_slots, response.send_stride, response.record, DB_SEND
        )  # fmt: skip
        self.max_wr, self.max_sge = response.caps.max_send_wr, response.caps.max_send_sge
        self.max_inline = response.caps.max_inline_data
        self.opcodes = frozenset(map(int, OPCODES.get(qp_type, ())))
        self.process = process

    def write(self, wr: Any) -> int:
        """Write one request; 0, or ENOMEM (full), or EINVAL (opcode, too many SGEs, too much inline data)."""
        if self.head - self.tail >= self.max_wr:
            return errno.ENOMEM
        image, sges = wr._image, wr._elements()
        opcode, flags, num_sge = _REQUEST.unpack_from(image, SEND_OPCODE)
        size = num_sge * SGE_BYTES
        if opcode not in self.opcodes or num_sge > self.max_sge or size > len(sges):
            return errno.EINVAL
        if size < len(sges):
            sges = sges[:size]
        if flags & _INLINE:
            return self._write_inline(image, sges)
        self._write(image, sges)
        return 0

    def write_tso(self, wr: Any) -> int:
        """Write a TSO request with its headers, which fit; 0, or ENOMEM (full), or EINVAL (too many SGEs)."""
        if self.head - self.tail >= self.max_wr:
            return errno.ENOMEM
        sges = wr._elements()
        if not sges or len(sges) > self.max_sge * SGE_BYTES:
            return errno.EINVAL
        self._write(wr._image, sges + wr.headers)
        return 0

    def _write_inline(self, image: bytearray, sges: bytes | bytearray) -> int:
        elements = list(SGE.iter_unpack(sges))
        if sum(length for _, length, _ in elements) > self.max_inline:
            return errno.EINVAL
        try:
            data = b"".join(self.process.read(address, length) for address, length, _ in elements)
        except OSError as error:
            return error.errno or errno.EFAULT
        self.write_inline(image, data)
        return 0

    def write_inline(self, image: bytearray, data: bytes) -> None:
        """Write a request that carries its data; there must be room for both."""
        header = bytearray(image)
        _WORD.pack_into(header, SEND_NUM_SGE, 0)
        _WORD.pack_into(header, SEND_INLINE_LENGTH, len(data))
        self._write(header, data)

    def _write(self, header: bytearray, payload: bytes | bytearray) -> None:
        at = (self.head & self.mask) * self.stride
        self.ring[at : at + SEND_HEADER_BYTES + len(payload)] = header + payload
        self.head += 1


class AtomicsChecked(SendQueue):
    """The send queue of a library that looks at atomics."""

    __slots__ = ()

    def write(self, wr: Any) -> int:
        """As for a send queue; EINVAL also for an atomic that is not aligned to 8 bytes, or shorter. Of more than 8
        bytes the first are used."""
        opcode = _REQUEST.unpack_from(wr._image, SEND_OPCODE)[0]
        return self._write_atomic(wr) if opcode in _ATOMICS else super().write(wr)

    def _write_atomic(self, wr: Any) -> int:
        elements, left = b"", 8
        for address, length, key in SGE.iter_unpack(wr._elements()):
            elements += SGE.pack(address, min(length, left), key)
            left -= min(length, left)
        if left or _ADDRESS.unpack_from(wr._image, SEND_REMOTE_ADDR)[0] % 8:
            return errno.EINVAL
        return super().write(SimpleNamespace(_image=wr._image, _elements=lambda: elements))
