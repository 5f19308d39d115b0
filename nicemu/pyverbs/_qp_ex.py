"""Queue pairs with the newer posting interface: requests are built between `wr_start` and `wr_complete`."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from nicemu.abi.rings import SEND_WQE, SGE_BYTES
from nicemu.abi.verbs import QpType, SendFlag, WrOpcode
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import U8, U16, U32, U64, expect
from nicemu.pyverbs._qp import _MAY_SEND, _SEND, _STARTED, QP, _raw_options
from nicemu.pyverbs._qp_attr import QPAttr, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs._qp_operations import FLAG
from nicemu.pyverbs._queues import SendQueue
from nicemu.pyverbs.addr import AH
from nicemu.pyverbs.base import PyverbsCM
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_qp_init_attr_mask
from nicemu.pyverbs.mr import MW, MWBindInfo
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.wr import SGE, SendWR

_INLINE = int(SendFlag.INLINE)
_ATOMIC_WRITE_BYTES = 8


class DataBuffer(PyverbsCM):
    """Memory to be copied into a request: `length` bytes at `addr`."""

    __slots__ = ("_addr", "_length")

    def __init__(self, addr: int, length: int) -> None:
        super().__init__()
        self._addr, self._length = U64(addr), U64(length)


class _Request(SendWR):
    """A request being built. `data`: the bytes it carries itself, if it does; `headers`: those of a TSO request."""

    __slots__ = ("data", "headers")

    def __init__(self, wr_id: int, opcode: WrOpcode, flags: int, imm_data: int) -> None:
        self._image = bytearray(SEND_WQE.pack(wr_id, opcode, flags, 0, imm_data, 0, 0, 0, 0, 0, 0, 0))
        self._sges, self._sge, self._next, self._ah = b"", None, None, None
        self.data: bytes | None = None
        self.headers = b""

    def set_sges(self, sges: Sequence[SGE]) -> None:
        """Use these elements, and no data of its own."""
        self._sges, self.num_sge, self.data = b"".join(sge._image for sge in sges), len(sges), None


class QPEx(QP):
    """A QP made with IBV_QP_INIT_ATTR_SEND_OPS_FLAGS. Set `wr_id` and `wr_flags`, call one `wr_` operation, then the
    setters of its addresses and data; any number of times between `wr_start` and `wr_complete`.

    An operation that the creation did not ask for makes the batch fail with EINVAL.
    """

    __slots__ = (
        "_batch",
        "_comp_mask",
        "_error",
        "_extended",
        "_ind_table",
        "_max_tso_header",
        "_operations",
        "_wr_flags",
        "_wr_id",
    )

    def __init__(
        self, creator: PD | Context, init_attr: QPInitAttr | QPInitAttrEx, qp_attr: QPAttr | None = None
    ) -> None:
        super().__init__(creator, init_attr, qp_attr)
        self._batch: list[_Request] | None = None
        self._error = self._wr_id = self._wr_flags = self._comp_mask = 0
        self._ind_table = getattr(init_attr, "ind_table", None)
        mask = getattr(init_attr, "comp_mask", 0)
        self._operations = getattr(init_attr, "_send_ops_flags", 0)
        self._max_tso_header = _raw_options(init_attr)[1]
        self._extended = bool(mask & ibv_qp_init_attr_mask.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)

    @property
    def wr_id(self) -> int:
        """The `wr_id` of the next request."""
        return self._wr_id

    @wr_id.setter
    def wr_id(self, val: int) -> None:
        self._wr_id = U64(val)

    @property
    def wr_flags(self) -> int:
        """The `ibv_send_flags` of the next request."""
        return self._wr_flags

    @wr_flags.setter
    def wr_flags(self, val: int) -> None:
        self._wr_flags = U32(val)

    @property
    def comp_mask(self) -> int:
        """Which members of C's extended QP count; nothing reads it."""
        return self._comp_mask

    @comp_mask.setter
    def comp_mask(self, val: int) -> None:
        self._comp_mask = U64(val)

    @property
    def ind_table(self) -> Any:
        """The indirection table given at creation."""
        return self._ind_table

    # A batch --------------------------------------------------------------------------------------------------------

    def wr_start(self) -> None:
        """Begin a batch."""
        self._opened()
        if not self._extended:
            raise PyverbsUserError("The QP was created without IBV_QP_INIT_ATTR_SEND_OPS_FLAGS")
        self._batch, self._error = [], 0

    def wr_complete(self) -> None:
        """Post the batch, all of it or nothing. PyverbsRDMAError: errno as for `post_send`."""
        batch, queue = self._batch, self._send_queue
        if batch is None or queue is None:
            raise PyverbsUserError("wr_complete without wr_start")
        self._batch = None
        head = queue.head
        may, unseen = self._state in _MAY_SEND, self._forgets_sends and self._state not in _STARTED
        error = self._error or (0 if may or unseen else errno.EINVAL)
        error = errno.EOPNOTSUPP if queue.generation != _kernel.generation else error
        for request in batch:
            error = error or self._write(queue, request)
        if error:
            queue.head = head
        if error or not may:
            raise PyverbsRDMAError("ibv_wr_complete failed.", error or errno.EINVAL)
        if batch and not unseen:
            queue.publish()
            self._kernel.ring_doorbell(self._device_index, _SEND, self._number, queue.head)

    def wr_abort(self) -> None:
        """Drop the batch."""
        self._batch = None

    def _write(self, queue: SendQueue, request: _Request) -> int:
        if request.headers:
            return queue.write_tso(request)
        if request.data is None:
            return queue.write(request)
        if queue.head - queue.tail >= queue.max_wr:
            return errno.ENOMEM
        if request.opcode not in queue.opcodes or len(request.data) > self._room(queue, request):
            return errno.EINVAL
        queue.write_inline(request._image, request.data)
        return 0

    @staticmethod
    def _room(queue: SendQueue, request: _Request) -> int:
        """Bytes of data that the request may carry: an atomic write brings its 8 whatever the QP's inline size is."""
        if request.opcode == WrOpcode.ATOMIC_WRITE:
            return max(queue.max_inline, min(_ATOMIC_WRITE_BYTES, queue.max_sge * SGE_BYTES))
        return queue.max_inline

    # Operations -----------------------------------------------------------------------------------------------------

    def _add(self, opcode: WrOpcode, imm_data: int = 0) -> _Request:
        if self._batch is None:
            raise PyverbsUserError("A work request outside wr_start and wr_complete")
        if not FLAG[opcode] & self._operations:
            self._error = self._error or errno.EINVAL
        request = _Request(self._wr_id, opcode, self._wr_flags & ~_INLINE, imm_data)
        self._batch.append(request)
        return request

    def _remote(self, opcode: WrOpcode, rkey: int, remote_addr: int, imm_data: int = 0) -> _Request:
        request = self._add(opcode, imm_data)
        request.set_wr_rdma(rkey, remote_addr)
        return request

    def wr_send(self) -> None:
        """SEND."""
        self._add(WrOpcode.SEND)

    def wr_send_imm(self, data: int) -> None:
        """SEND with immediate data in host order."""
        self._add(WrOpcode.SEND_WITH_IMM, _network_order(data))

    def wr_send_inv(self, invalidate_rkey: int) -> None:
        """SEND that invalidates a key of the receiver's."""
        self._add(WrOpcode.SEND_WITH_INV, U32(invalidate_rkey))

    def wr_rdma_read(self, rkey: int, remote_addr: int) -> None:
        """RDMA READ."""
        self._remote(WrOpcode.RDMA_READ, rkey, remote_addr)

    def wr_rdma_write(self, rkey: int, remote_addr: int) -> None:
        """RDMA WRITE."""
        self._remote(WrOpcode.RDMA_WRITE, rkey, remote_addr)

    def wr_rdma_write_imm(self, rkey: int, remote_addr: int, data: int) -> None:
        """RDMA WRITE with immediate data in host order."""
        self._remote(WrOpcode.RDMA_WRITE_WITH_IMM, rkey, remote_addr, _network_order(data))

    def wr_atomic_cmp_swp(self, rkey: int, remote_addr: int, compare: int, swap: int) -> None:
        """Compare and swap."""
        self._add(WrOpcode.ATOMIC_CMP_AND_SWP).set_wr_atomic(rkey, remote_addr, compare, swap)

    def wr_atomic_fetch_add(self, rkey: int, remote_addr: int, add: int) -> None:
        """Fetch and add."""
        self._add(WrOpcode.ATOMIC_FETCH_AND_ADD).set_wr_atomic(rkey, remote_addr, add)

    def wr_atomic_write(self, rkey: int, remote_addr: int, atomic_wr: bytes) -> None:
        """Write the first 8 bytes of `atomic_wr` atomically."""
        request = self._remote(WrOpcode.ATOMIC_WRITE, rkey, remote_addr)
        self._carry(request, bytes(atomic_wr[:_ATOMIC_WRITE_BYTES]).ljust(_ATOMIC_WRITE_BYTES, b"\0"))

    def wr_local_inv(self, invalidate_rkey: int) -> None:
        """Invalidate a local key."""
        self._add(WrOpcode.LOCAL_INV, U32(invalidate_rkey))

    def wr_bind_mw(self, mw: MW, rkey: int, bind_info: MWBindInfo) -> None:
        """Bind a type 2 memory window; `rkey` is its new key: that of the window with other low 8 bits."""
        expect(mw, MW, "mw")
        expect(bind_info, MWBindInfo, "bind_info")
        self._add(WrOpcode.BIND_MW)._set_bind(mw.rkey, U32(rkey), bind_info)

    def wr_flush(self, rkey: int, remote_addr: int, length: int, ptype: int, level: int) -> None:
        """Make remote data globally visible or persistent (`ibv_placement_type`), of a range or of the whole MR
        (`ibv_selectivity_level`; it does not look at the range).
        """
        request = self._remote(WrOpcode.FLUSH, rkey, remote_addr)
        request._compare_add, request._swap = U8(ptype) | U8(level) << 8, U64(length)

    def wr_send_tso(self, hdr: int, hdr_sz: int, mss: int) -> None:
        """Send the data of the SGEs as TCP segments of `mss` bytes, each behind the `hdr_sz` bytes of headers at `hdr`
        (copied now). The batch fails with EINVAL for more headers than `max_tso_header` of the creation, EFAULT for
        headers that cannot be read, EOPNOTSUPP on a QP that is no raw packet QP.
        """
        address, size, segment = U64(hdr), U16(hdr_sz), U16(mss)
        request = self._add(WrOpcode.TSO)
        if self._type != QpType.RAW_PACKET or not 0 < size <= self._max_tso_header:
            lacks = self._type != QpType.RAW_PACKET
            self._error = errno.EOPNOTSUPP if lacks else self._error or errno.EINVAL
            return
        try:
            request.headers = self._kernel.process.read(address, size)
        except OSError as error:
            self._error = self._error or error.errno or errno.EFAULT
        request._compare_add, request._swap = size, segment

    # Setters of the last request ------------------------------------------------------------------------------------

    def _last(self) -> _Request:
        if not self._batch:
            raise PyverbsUserError("No work request to set this on")
        return self._batch[-1]

    def wr_set_ud_addr(self, ah: AH, remote_qpn: int, remote_rkey: int) -> None:
        """Where the datagram goes; the last argument is the Q_Key."""
        self._last().set_wr_ud(ah, remote_qpn, remote_rkey)

    def wr_set_xrc_srqn(self, remote_srqn: int) -> None:
        """The SRQ that the request is for."""
        self._last().set_qp_type_xrc(remote_srqn)

    def wr_set_sge(self, sge: SGE) -> None:
        """The request's only element."""
        self.wr_set_sge_list(1, (sge,))

    def wr_set_sge_list(self, num_sge: int, sg_list: Sequence[SGE]) -> None:
        """The request's elements."""
        request, sges = self._last(), sg_list[:num_sge]
        for sge in sges:
            expect(sge, SGE, "sge")
        request.set_sges(sges)

    def wr_set_inline_data(self, addr: int, length: int) -> None:
        """Copy the request's data from memory now."""
        self.wr_set_inline_data_list(1, (DataBuffer(addr, length),))

    def wr_set_inline_data_list(self, num_buf: int, buf_list: Sequence[DataBuffer]) -> None:
        """Copy the request's data from several places now."""
        request, process = self._last(), self._kernel.process
        data = b"".join(process.read(buffer._addr, buffer._length) for buffer in buf_list[:num_buf])
        self._carry(request, data)

    @staticmethod
    def _carry(request: _Request, data: bytes) -> None:
        request.data = data
        request.send_flags |= _INLINE


def _network_order(value: int) -> int:
    """The low 32 bits with their bytes swapped, as htobe32 does."""
    return int.from_bytes((U64(value) & U32.high).to_bytes(4, "little"), "big")
