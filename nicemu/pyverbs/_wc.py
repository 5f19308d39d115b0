"""Work completions, and the names of their values."""

from __future__ import annotations

import struct
from typing import Any

from nicemu.abi import rings
from nicemu.pyverbs._fields import I32, U8, U16, U32, U64, Packed
from nicemu.pyverbs._text import flag_names, lines
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.libibverbs_enums import ibv_create_cq_wc_flags, ibv_wc_opcode, ibv_wc_status

# A CQE with the members of `ibv_wc` that RoCE has no use for in its reserved word
_WC = struct.Struct("<QIIIIIIIIQIIHBBI")
_new = object.__new__
_WC_SLID, _WC_SL, _WC_DLID_PATH_BITS = 56, 58, 59


class WC(PyverbsObject):
    """A work completion. `imm_data` is as the sender gave it (the program does ntohl)."""

    __slots__ = ("_image",)
    _image: bytearray
    wr_id = Packed(U64, rings.CQE_WR_ID, doc="The `wr_id` of the request")
    status = Packed(U32, rings.CQE_STATUS, enum=ibv_wc_status, doc="An `ibv_wc_status`")
    opcode = Packed(U32, rings.CQE_OPCODE, enum=ibv_wc_opcode, doc="An `ibv_wc_opcode`")
    vendor_err = Packed(U32, rings.CQE_VENDOR_ERR, doc="The vendor's reason for a bad status")
    byte_len = Packed(U32, rings.CQE_BYTE_LEN, doc="Bytes transferred")
    qp_num = Packed(U32, rings.CQE_QP_NUM, doc="The QP that completed it")
    src_qp = Packed(U32, rings.CQE_SRC_QP, doc="The sender's QP number, of a datagram")
    imm_data = Packed(U32, rings.CQE_IMM, doc="Immediate data in network order, or the rkey that was invalidated")
    wc_flags = Packed(I32, rings.CQE_WC_FLAGS, doc="`ibv_wc_flags`")
    pkey_index = Packed(U16, rings.CQE_PKEY_INDEX, doc="Index into the P_Key table")
    slid = Packed(U16, _WC_SLID, doc="The sender's LID")
    sl = Packed(U8, _WC_SL, doc="Service level")
    dlid_path_bits = Packed(U8, _WC_DLID_PATH_BITS, doc="Low bits of our LID that the sender used")

    def __init__(
        self,
        wr_id: int = 0,
        status: int = 0,
        opcode: int = 0,
        vendor_err: int = 0,
        byte_len: int = 0,
        qp_num: int = 0,
        src_qp: int = 0,
        imm_data: int = 0,
        wc_flags: int = 0,
        pkey_index: int = 0,
        slid: int = 0,
        sl: int = 0,
        dlid_path_bits: int = 0,
    ) -> None:
        super().__init__()
        self._image = bytearray(_WC.size)
        self.wr_id, self.status, self.opcode, self.vendor_err = wr_id, status, opcode, vendor_err
        self.byte_len, self.qp_num, self.src_qp, self.imm_data = byte_len, qp_num, src_qp, imm_data
        self.wc_flags, self.pkey_index = wc_flags, pkey_index
        self.slid, self.sl, self.dlid_path_bits = slid, sl, dlid_path_bits

    def __str__(self) -> str:
        rows: list[tuple[str, Any]] = [
            ("WR ID", self.wr_id),
            ("status", cqe_status_to_str(self.status)),
            ("opcode", cqe_opcode_to_str(self.opcode)),
            ("vendor error", self.vendor_err),
            ("byte length", self.byte_len),
            ("QP num", self.qp_num),
            ("source QP", self.src_qp),
            ("WC flags", cqe_flags_to_str(self.wc_flags)),
            ("pkey index", self.pkey_index),
            ("slid", self.slid),
            ("sl", self.sl),
            ("imm_data", self.imm_data),
            ("dlid path bits", self.dlid_path_bits),
        ]
        return lines(rows)


def from_cqe(entry: bytearray) -> WC:
    """The completion that an entry of a CQ's ring is; the entry becomes its own."""
    wc = _new(WC)
    wc._image = entry
    return wc


_STATUS = (
    "success",
    "local length error",
    "local QP op error",
    "local EEC op error",
    "local protection error",
    "WR flush error",
    "memory window bind error",
    "bad response error",
    "local access error",
    "remote invalidate request error",
    "remote access error",
    "remote op error",
    "retry exceeded error",
    "RNR retry exceeded",
    "local RDD violation error",
    "remote invalidate RD request error",
    "remote abort error",
    "invalidate EECN error",
    "invalidate EEC state error",
    "WC fatal error",
    "response timeout error",
    "general error",
)
_OPCODES = {
    0x00: "Send",
    0x01: "RDMA write",
    0x02: "RDMA read",
    0x03: "Compare and swap",
    0x04: "Fetch and add",
    0x05: "Bind Memory window",
    0x06: "Local invalidate",
    0x07: "TSO",
    0x80: "Receive",
    0x81: "Receive RDMA with immediate",
    0x82: "Tag matching - add",
    0x83: "Tag matching - delete",
    0x84: "Tag matching - sync",
    0x85: "Tag matching - receive",
    0x86: "Tag matching - no tag",
    0x87: "Driver WR",
}
_FLAGS = {
    1: "GRH",
    2: "With immediate",
    4: "IP csum OK",
    8: "With invalidate",
    16: "TM sync request",
    32: "TM match",
    64: "TM data valid",
}
_CREATE_FLAGS = {
    int(flag): flag.name for flag in ibv_create_cq_wc_flags if flag is not ibv_create_cq_wc_flags.IBV_WC_EX_WITH_TM_INFO
}


def cqe_status_to_str(status: int) -> str:
    """The name of an `ibv_wc_status`."""
    return _STATUS[status] if 0 <= status < len(_STATUS) else "Unknown CQE status"


def cqe_opcode_to_str(opcode: int) -> str:
    """The name of an `ibv_wc_opcode`."""
    return _OPCODES.get(opcode, f"Unknown CQE opcode {opcode}")


def cqe_flags_to_str(flags: int) -> str:
    """The names of `ibv_wc_flags`, a space after each."""
    return flag_names(flags, _FLAGS)


def create_wc_flags_to_str(flags: int) -> str:
    """The C names of `ibv_create_cq_wc_flags`, a space after each."""
    return flag_names(flags, _CREATE_FLAGS)
