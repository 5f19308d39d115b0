"""Operations on the tag list of a TM-SRQ: the request, and the producer's side of their ring."""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Sequence

from nicemu.abi import tag_matching as abi
from nicemu.abi.rings import SGE_BYTES
from nicemu.abi.tag_matching import (
    DB_OPS_CONSUMER,
    DB_OPS_PRODUCER,
    OP,
    OP_HEADER_BYTES,
    OP_STATUS,
    OP_STRIDE,
    TAG_FREED,
    OpFlag,
    TagOp,
)
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import I32, U32, U64, Packed, expect
from nicemu.pyverbs.base import PyverbsCM
from nicemu.pyverbs.wr import SGE, _pack_sges
from nicemu.uverbs.srq_messages import TagOperations

_ADD, _SIGNALED = int(TagOp.ADD), int(OpFlag.SIGNALED)
_STATUS = struct.Struct("<I")


class OpsWr(PyverbsCM):
    """An operation on the tags of a TM-SRQ: `IBV_WR_TAG_ADD`, `_DEL` or `_SYNC`.

    ADD: a buffer (the first `num_sge` elements of `sg_list`) for the next message whose tag, under `mask`, is `tag`;
    its completions carry `recv_wr_id`, and posting it sets `handle`. DEL: the tag of that `handle`. `unexpected_cnt`
    counts with the flag `IBV_OPS_TM_SYNC` only: unexpected messages that the program has handled.
    """

    __slots__ = ("_image", "_next", "_sges")
    wr_id = Packed(U64, abi.OP_WR_ID)
    opcode = Packed(U32, abi.OP_OPCODE)
    flags = Packed(I32, abi.OP_FLAGS)
    unexpected_cnt = Packed(U32, abi.OP_UNEXPECTED)
    recv_wr_id = Packed(U64, abi.OP_RECV_WR_ID)
    tag = Packed(U64, abi.OP_TAG)
    handle = Packed(U32, abi.OP_HANDLE)
    mask = Packed(U64, abi.OP_MASK)
    _num_sge = Packed(I32, abi.OP_NUM_SGE)

    def __init__(
        self,
        wr_id: int = 0,
        opcode: int = _ADD,
        flags: int = _SIGNALED,
        next_wr: OpsWr | None = None,
        unexpected_cnt: int = 0,
        recv_wr_id: int = 0,
        num_sge: int | None = None,
        tag: int = 0,
        mask: int = 0,
        sg_list: Sequence[SGE] | None = None,
    ) -> None:
        self._image = bytearray(OP_HEADER_BYTES)
        self.wr_id, self.opcode, self.flags, self.unexpected_cnt = wr_id, opcode, flags, unexpected_cnt
        self.recv_wr_id, self.tag, self.mask = recv_wr_id, tag, mask
        expect(next_wr, OpsWr, "next_wr", optional=True)
        self._next = next_wr
        if num_sge is not None:
            self._num_sge = num_sge
        if sg_list is not None and num_sge is None:
            raise TypeError("num_sge is needed with sg_list")
        self._sges = _pack_sges(sg_list, max(self._num_sge, 0))

    @property
    def next_wr(self) -> OpsWr | None:
        """The operation posted after this one."""
        return self._next

    @next_wr.setter
    def next_wr(self, val: OpsWr) -> None:
        expect(val, OpsWr, "val")
        self._next = val

    def _become(self, other: OpsWr) -> None:
        self._image, self._sges, self._next = bytearray(other._image), other._sges, other._next


class TagQueue:
    """The ring of operations, and which handles are in use.

    A handle is free again when its tag's last receive completion was polled (``retire``), or when the device has
    deleted the tag. An operation is outstanding until the device has executed it.
    """

    __slots__ = ("_executed", "_free", "_used", "generation", "head", "limits", "mask", "record", "ring")

    def __init__(self, limits: TagOperations) -> None:
        self.limits, self.ring, self.record = limits, limits.ring, limits.record.cast("q")
        self.mask, self.head, self._executed = limits.slots - 1, 0, 0
        self._free = deque(range(limits.max_num_tags))
        self._used: set[int] = set()
        self.generation = _kernel.generation
        """Of the process whose memory the device reads."""

    def write(self, wr: OpsWr) -> int:
        """Write one operation; 0, or ENOMEM (as many outstanding as may be, no tag free), or EINVAL (opcode, too many
        elements, a handle that no tag has)."""
        self._see_executed()
        if self.head - self._executed >= self.limits.max_ops:
            return errno.ENOMEM
        error = self._check(wr)
        if error:
            return error
        if wr.opcode == TagOp.ADD:
            wr.handle = self._free.popleft()
            self._used.add(wr.handle)
        at = (self.head & self.mask) * OP_STRIDE
        entry = wr._image + (wr._sges if wr.opcode == TagOp.ADD else b"")
        self.ring[at : at + len(entry)] = entry
        self.head += 1
        return 0

    def _check(self, wr: OpsWr) -> int:
        if wr.opcode == TagOp.ADD:
            if not 0 <= wr._num_sge <= self.limits.max_sge or len(wr._sges) != wr._num_sge * SGE_BYTES:
                return errno.EINVAL
            return 0 if self._free else errno.ENOMEM
        if wr.opcode == TagOp.DEL:
            return 0 if wr.handle in self._used else errno.EINVAL
        return 0 if wr.opcode == TagOp.SYNC else errno.EINVAL

    def publish(self) -> None:
        """Show the device what has been written."""
        self.record[DB_OPS_PRODUCER // 8] = self.head

    def _see_executed(self) -> None:
        """Operations that the device has executed since: a tag that it deleted gives its handle back."""
        end = min(self.record[DB_OPS_CONSUMER // 8], self.head)
        for counter in range(self._executed, end):
            at = (counter & self.mask) * OP_STRIDE
            opcode, handle = (_STATUS.unpack_from(self.ring, at + field)[0] for field in (abi.OP_OPCODE, abi.OP_HANDLE))
            if opcode == TagOp.DEL and _STATUS.unpack_from(self.ring, at + OP_STATUS)[0] == 0:
                self._release(handle)
        self._executed = max(end, self._executed)

    def retire(self, counter: int) -> None:
        """A receive completion with this `wqe_counter` was polled."""
        if counter & TAG_FREED:
            self._release(counter & ~TAG_FREED)

    def _release(self, handle: int) -> None:
        if handle in self._used:
            self._used.remove(handle)
            self._free.append(handle)


assert OP.size == OP_HEADER_BYTES
