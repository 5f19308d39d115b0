"""Work requests.

A work request holds the bytes of its ring entry (`nicemu.abi.rings`), so posting it is a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from nicemu.abi import rings
from nicemu.abi.rings import RECV_HEADER_BYTES, RECV_WQE, SEND_HEADER_BYTES, SEND_WQE, SGE_BYTES
from nicemu.abi.verbs import SendFlag, WrOpcode
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import I32, U32, U64, Packed, expect
from nicemu.pyverbs._text import flag_names, lines
from nicemu.pyverbs.addr import AH
from nicemu.pyverbs.base import PyverbsCM, PyverbsRDMAErrno, inc_rkey
from nicemu.pyverbs.libibverbs_enums import ibv_send_flags
from nicemu.pyverbs.mr import MW, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsUserError

__all__ = [
    "SGE",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsUserError",
    "RecvWR",
    "SendWR",
    "inc_rkey",
    "send_flags_to_str",
]

_SEND, _SIGNALED = int(WrOpcode.SEND), int(SendFlag.SIGNALED)
_NEEDS_NO_SGE = (WrOpcode.LOCAL_INV, WrOpcode.BIND_MW, WrOpcode.SEND_WITH_INV)
_SEND_FLAGS = {int(flag): flag.name for flag in ibv_send_flags}


class SGE(PyverbsCM):
    """A scatter/gather element: `length` bytes at `addr` under the key `lkey`."""

    __slots__ = ("_image",)
    addr = Packed(U64, rings.SGE_ADDR, doc="Where it begins")
    length = Packed(U32, rings.SGE_LENGTH, doc="Its bytes")
    lkey = Packed(U32, rings.SGE_LKEY, doc="The key of its MR")

    def __init__(self, addr: int, length: int, lkey: int) -> None:
        try:
            self._image = bytearray(rings.SGE.pack(addr, length, lkey))
        except struct.error:  # a float, or a value that does not fit
            self._image = bytearray(SGE_BYTES)
            self.addr, self.length, self.lkey = addr, length, lkey

    def read(self, length: int, offset: int) -> bytes:
        """`length` bytes of memory, `offset` bytes after `addr`."""
        data: bytes = _kernel.endpoint().process.read(self.addr + I32(offset), U64(length))
        return data

    def __str__(self) -> str:
        return lines([("Address", hex(self.addr)), ("Length", self.length), ("Key", hex(self.lkey))])


def _pack_sges(sg: Sequence[SGE] | None, num_sge: int) -> bytes:
    """The first `num_sge` elements as ring bytes; later changes to them have no effect."""
    if not num_sge or sg is None:
        return b""
    elements = [sg[index] for index in range(num_sge)]
    for sge in elements:
        expect(sge, SGE, "sg")
    return b"".join([sge._image for sge in elements])


class RecvWR(PyverbsCM):
    """A receive work request: the first `num_sge` elements of `sg` take the message."""

    __slots__ = ("_image", "_next", "_sges")
    wr_id = Packed(U64, rings.RECV_WR_ID, doc="The program's number, which the completion tells")
    num_sge = Packed(U32, rings.RECV_NUM_SGE, doc="How many SGEs it has")

    def __init__(
        self, wr_id: int = 0, num_sge: int = 0, sg: Sequence[SGE] | None = None, next_wr: RecvWR | None = None
    ) -> None:
        self._sges = _pack_sges(sg, num_sge)
        try:
            self._image = bytearray(RECV_WQE.pack(wr_id, num_sge, 0))
        except struct.error:
            self._image = bytearray(RECV_HEADER_BYTES)
            self.wr_id, self.num_sge = wr_id, num_sge
        expect(next_wr, RecvWR, "next_wr", optional=True)
        self._next = next_wr

    @property
    def next_wr(self) -> RecvWR | None:
        """The request posted after this one."""
        return self._next

    @next_wr.setter
    def next_wr(self, val: RecvWR) -> None:
        expect(val, RecvWR, "val")
        self._next = val

    def _become(self, other: RecvWR) -> None:
        self._image, self._sges, self._next = bytearray(other._image), other._sges, other._next

    def __str__(self) -> str:
        return lines([("WR ID", self.wr_id), ("Num SGE", self.num_sge)])


class SendWR(PyverbsCM):
    """A send work request. `imm_data` goes out as it is given (the program does htonl); it is the rkey to invalidate
    for SEND_WITH_INV and LOCAL_INV. PyverbsUserError: no SGE, and the opcode needs one.
    """

    __slots__ = ("_ah", "_image", "_next", "_sge", "_sges")
    wr_id = Packed(U64, rings.SEND_WR_ID, doc="The program's number, which the completion tells")
    opcode = Packed(U32, rings.SEND_OPCODE, doc="An `ibv_wr_opcode`")
    send_flags = Packed(U32, rings.SEND_FLAGS, doc="`ibv_send_flags`")
    num_sge = Packed(U32, rings.SEND_NUM_SGE, doc="How many SGEs it has")
    imm_data = Packed(U32, rings.SEND_IMM, doc="Immediate data in network order, or the rkey to invalidate")
    _remote_addr = Packed(U64, rings.SEND_REMOTE_ADDR)
    _rkey = Packed(U32, rings.SEND_RKEY)
    _compare_add = Packed(U64, rings.SEND_COMPARE_ADD)
    _swap = Packed(U64, rings.SEND_SWAP)
    _remote_qpn = Packed(U32, rings.SEND_REMOTE_QPN)
    _remote_qkey = Packed(U32, rings.SEND_REMOTE_QKEY)

    def __init__(
        self,
        wr_id: int = 0,
        opcode: int = _SEND,
        num_sge: int = 0,
        imm_data: int = 0,
        sg: Sequence[SGE] | None = None,
        send_flags: int = _SIGNALED,
        next_wr: SendWR | None = None,
    ) -> None:
        if (num_sge < 1 or sg is None) and opcode not in _NEEDS_NO_SGE:
            raise PyverbsUserError("A WR needs at least one SGE")
        self._sges = _pack_sges(sg, num_sge)
        try:
            self._image = bytearray(SEND_WQE.pack(wr_id, opcode, send_flags, num_sge, imm_data, 0, 0, 0, 0, 0, 0, 0))
        except struct.error:
            self._image = bytearray(SEND_HEADER_BYTES)
            self.wr_id, self.opcode, self.send_flags = wr_id, opcode, send_flags
            self.num_sge, self.imm_data = num_sge, imm_data
        expect(next_wr, SendWR, "next_wr", optional=True)
        self._next = next_wr
        self._sge: SGE | None = None
        self._ah: AH | None = None

    @property
    def next_wr(self) -> SendWR | None:
        """The request posted after this one."""
        return self._next

    @next_wr.setter
    def next_wr(self, val: SendWR) -> None:
        expect(val, SendWR, "val")
        self._next = val

    def _set_sg_list(self, val: SGE) -> None:
        expect(val, SGE, "val")
        self._sge = val

    sg_list = property(fset=_set_sg_list, doc="Set only: use this one element, as it is when the request is posted.")

    def _elements(self) -> bytes | bytearray:
        return self._sges if self._sge is None else self._sge._image

    def set_wr_ud(self, ah: AH, rqpn: int, rqkey: int) -> None:
        """Where a datagram goes."""
        expect(ah, AH, "ah")
        ah._opened()
        self._ah = ah
        self._rkey, self._remote_qpn, self._remote_qkey = ah._number, rqpn, rqkey

    def set_wr_rdma(self, rkey: int, addr: int) -> None:
        """The remote memory of an RDMA write or read."""
        self._remote_addr, self._rkey = addr, rkey

    def set_wr_atomic(self, rkey: int, addr: int, compare_add: int, swap: int = 0) -> None:
        """The remote 8 bytes of an atomic, and its operands: compare and swap, or the number to add."""
        self._remote_addr, self._rkey, self._compare_add, self._swap = addr, rkey, compare_add, swap

    def set_bind_wr(self, mw: MW, bind_info: MWBindInfo) -> None:
        """Bind a memory window; the new key is the next of the window's."""
        expect(mw, MW, "mw")
        expect(bind_info, MWBindInfo, "bind_info")
        self._set_bind(mw.rkey, inc_rkey(mw.rkey), bind_info)

    def _set_bind(self, key: int, new_key: int, info: MWBindInfo) -> None:
        self._remote_addr, self._swap, self._remote_qpn = info.addr, info.length, info._mr.lkey
        self._compare_add, self._rkey, self.imm_data = key, new_key, info.mw_access_flags

    @property
    def rkey(self) -> int:
        """The remote key."""
        return self._rkey

    def set_qp_type_xrc(self, remote_srqn: int) -> None:
        """The SRQ that an XRC message is for."""
        self._remote_qpn = remote_srqn

    def _become(self, other: SendWR) -> None:
        self._image, self._sges, self._sge = bytearray(other._image), other._sges, other._sge
        self._next, self._ah = other._next, other._ah

    def __str__(self) -> str:
        flags = send_flags_to_str(self.send_flags) + lines([("Imm Data", self.imm_data)])  # one line, as in pyverbs
        rows = [("WR ID", self.wr_id), ("Num SGE", self.num_sge), ("Opcode", self.opcode), ("Send flags", flags)]
        return lines(rows)


def send_flags_to_str(flags: int) -> str:
    """The C names of send flags, a space after each."""
    return flag_names(flags, _SEND_FLAGS)
