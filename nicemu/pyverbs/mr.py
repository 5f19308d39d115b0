"""Memory regions and memory windows."""

from __future__ import annotations

import errno
import mmap as _mmap
from typing import Any
from weakref import WeakValueDictionary

from nicemu.abi.command import Rereg
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._device_memory import DM
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._fields import I32, U32, U64, Constant, Field, Struct, expect
from nicemu.pyverbs._mw import MW, mwtype2str
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsCM, PyverbsRDMAErrno
from nicemu.pyverbs.dmabuf import DmaBuf
from nicemu.pyverbs.libibverbs_enums import ibv_access_flags
from nicemu.pyverbs.mem_alloc import MAP_HUGETLB_, as_bytes
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.utils import rereg_error_to_str
from nicemu.uverbs import import_messages, memory_messages

__all__ = [
    "DMMR",
    "HUGE_PAGE_SIZE",
    "MR",
    "MW",
    "DmaBufMR",
    "MWBind",
    "MWBindInfo",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "mwtype2str",
    "rereg_error_to_str",
]

publish(__name__)

HUGE_PAGE_SIZE = 0x200000
_WHOLE_ADDRESS_SPACE = 2**64 - 1
_REREG_MEMORY, _REREG_PD, _REREG_ACCESS = int(Rereg.TRANSLATION), int(Rereg.PD), int(Rereg.ACCESS)
_REREG = _REREG_MEMORY | _REREG_PD | _REREG_ACCESS


class MR(Resource):
    """A memory region of `length` bytes.

    Without an `address` the MR brings its own zeroed, page-aligned buffer and frees it when it is closed; memory of
    the program is never freed. `implicit` registers the whole address space on demand. With `handle` an existing MR of
    the PD's context is imported: closing leaves it, and `address` is where the program knows its buffer to be.
    PyverbsRDMAError: the kernel refused (EINVAL: remote write or atomic access without local write; EFAULT; ENOMEM;
    ENOENT: nothing has the handle). PyverbsError: no buffer.
    """

    __slots__ = ("_buf", "_huge_length", "_key", "_length", "_owns_buffer", "_pd")
    KIND = "mrs"

    def __init__(
        self,
        creator: PD,
        length: int = 0,
        access: int = 0,
        address: int | None = None,
        implicit: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        failure = f"Failed to register a MR. length: {length}, access flags: {access}"
        if not isinstance(creator, PD):
            raise PyverbsRDMAError(failure, errno.EINVAL)
        self._kernel = creator._kernel
        size, flags = U64(length), I32(access)
        self._buf = U64(address) if address else 0
        self._huge_length, self._owns_buffer = 0, False
        if kwargs.get("handle") is not None:
            self._import(creator, U32(kwargs["handle"]))
            return
        self._owns_buffer = not address and size > 0
        if self._owns_buffer:
            self._allocate(size, bool(flags & ibv_access_flags.IBV_ACCESS_HUGETLB))
        region = (0, _WHOLE_ADDRESS_SPACE) if implicit else (self._buf, size)
        try:
            response = self._execute(memory_messages.RegMr(creator._opened(), *region, flags, region[0]), failure)
        except PyverbsError:
            self._free_buffer()
            raise
        self._handle, self._length = response.handle, region[1]
        self._join(creator, response)

    def _import(self, pd: PD, handle: int) -> None:
        response = self._execute(import_messages.ImportMr(pd._opened(), handle), "Failed to import MR")
        self._handle, self._imported, self._length = handle, True, response.length
        self._join(pd, response)

    def _join(self, pd: PD, keys: memory_messages.MrResponse | import_messages.ImportedMr) -> None:
        self._key: tuple[int, int] = (keys.lkey, keys.rkey)
        self._pd: PD | None = pd
        self._attach(pd)

    def _allocate(self, size: int, huge: bool) -> None:
        process = self._kernel.process
        try:
            if huge:
                self._huge_length = -(-size // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
                flags = _mmap.MAP_PRIVATE | _mmap.MAP_ANONYMOUS | MAP_HUGETLB_
                self._buf = process.mmap(self._huge_length, _mmap.PROT_READ | _mmap.PROT_WRITE, flags)
            else:
                self._buf = process.posix_memalign(size, _mmap.PAGESIZE)
        except OSError as error:
            raise PyverbsError(f"Failed to allocate MR buffer of size {size}") from error

    def _free_buffer(self) -> None:
        if not self._owns_buffer:
            return
        self._owns_buffer = False
        if self._huge_length:
            self._kernel.process.munmap(self._buf, self._huge_length)
        else:
            self._kernel.process.free(self._buf)

    def _destroy(self, handle: int) -> None:
        self._execute(memory_messages.DeregMr(handle), "Failed to dereg MR")

    def _release(self) -> None:
        self._free_buffer()
        self._buf = 0
        self._pd = None

    def unimport(self) -> None:
        """Let go of an imported MR."""
        self.close()

    def write(self, data: Any, length: int, offset: int = 0) -> None:
        """Copy `length` bytes of `data` (str or bytes) to `offset` in the buffer."""
        at, size = self._checked(length, offset)
        self._access(lambda process: process.write(at, as_bytes(data, size)))

    def read(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset` in the buffer. PyverbsUserError: negative, or no buffer."""
        if offset < 0:
            raise PyverbsUserError(f"Invalid offset {offset}")
        at, size = self._checked(length, offset)
        data: bytes = self._access(lambda process: process.read(at, size))
        return data

    def _checked(self, length: int, offset: int) -> tuple[int, int]:
        if not self.buf or length < 0:
            raise PyverbsUserError(f"The MR buffer isn't allocated or length {length} is invalid")
        return self._buf + I32(offset), U64(length)

    def _access(self, copy: Any) -> Any:
        """Where C would crash on memory that is gone, the caller gets an error with EFAULT."""
        try:
            return copy(self._kernel.process)
        except OSError as error:
            raise _kernel.failed("Failed to access the MR buffer", error) from error

    def rereg(self, flags: int, pd: PD | None = None, addr: int = 0, length: int = 0, access: int = 0) -> None:
        """Change PD, memory or access of the MR, as `flags` (`ibv_rereg_mr_flags`) say; the keys stay.

        New memory is the program's; a buffer of the MR's own is freed. PyverbsRDMAError: refused, naming the
        `ibv_rereg_mr_err_code`: after ERR_INPUT the MR is as it was, after ERR_CMD it should only be closed.
        """
        expect(pd, PD, "pd", optional=True)
        mask, size, rights = U32(flags), U64(length), I32(access)
        no_memory = mask & _REREG_MEMORY and not (size and addr)
        if mask & ~_REREG or no_memory or (rights and not mask & _REREG_ACCESS):
            raise PyverbsRDMAError("Failed to rereg MR: IBV_REREG_MR_ERR_INPUT", errno.EINVAL)
        domain = pd._opened() if pd is not None and mask & _REREG_PD else 0
        command = memory_messages.ReregMr(self._opened(), mask, domain, U64(addr), size, U64(addr), rights)
        response = self._execute(command, "Failed to rereg MR: IBV_REREG_MR_ERR_CMD")
        self._key = (response.lkey, response.rkey)
        if mask & _REREG_MEMORY:
            self._free_buffer()
            self._buf, self._length = U64(addr), size
        if pd is not None and mask & _REREG_PD:
            if self._pd is not None:
                self._detach(self._pd)
            self._pd = pd
            self._attach(pd)

    @property
    def buf(self) -> int:
        """Address of the buffer; 0 when closed."""
        return self._buf if self._handle is not None else 0

    @property
    def lkey(self) -> int:
        """The key for local access."""
        self._opened()
        return self._key[0]

    @property
    def rkey(self) -> int:
        """The key for remote access."""
        self._opened()
        return self._key[1]

    @property
    def length(self) -> int:
        """Bytes registered."""
        self._opened()
        return self._length

    @property
    def handle(self) -> int:
        """The kernel's handle."""
        return self._opened()

    def __str__(self) -> str:
        rows = [(name, getattr(self, name)) for name in ("lkey", "rkey", "length", "buf", "handle")]
        return "MR:\n" + lines(rows)


class MWBindInfo(Struct, PyverbsCM):
    """The part of an MR that a window opens: `length` bytes at `addr`. Read only."""

    __slots__ = ("_mr",)
    addr = Constant(doc="Where the part begins")
    length = Constant(doc="Its bytes")
    mw_access_flags = Constant(doc="What the peer may do, as `ibv_access_flags`")

    def __init__(self, mr: MR, addr: int, length: int, mw_access_flags: int) -> None:
        expect(mr, MR, "mr")
        super().__init__()
        self._values = {"addr": U64(addr), "length": U64(length), "mw_access_flags": U32(mw_access_flags)}
        self._mr = mr

    def __str__(self) -> str:
        rows = [("Addr", self.addr), ("Length", self.length), ("MW access flags", self.mw_access_flags)]
        return "MWBindInfo:\n" + lines(rows)


class MWBind(Struct, PyverbsCM):
    """A bind request for a type 1 window."""

    __slots__ = ("_info",)
    _wr_id = Field(U64)
    _send_flags = Field(U32)

    def __init__(self, info: MWBindInfo, send_flags: int, wr_id: int = 0) -> None:
        expect(info, MWBindInfo, "info")
        super().__init__(_wr_id=wr_id, _send_flags=send_flags)
        self._info = info

    def __str__(self) -> str:
        return "MWBind:\n" + lines([("WR id", self._wr_id), ("Send flags", self._send_flags)])


class DMMR(MR):
    """A region of `length` bytes of device memory from `offset` on; `access` must say ZERO_BASED: its addresses start
    at 0. It reads and writes through the DM. PyverbsRDMAError: EINVAL.
    """

    __slots__ = ("_dm",)

    def __init__(self, pd: PD, length: int, access: int, dm: DM, offset: int) -> None:
        expect(pd, PD, "pd")
        expect(dm, DM, "dm")
        Resource.__init__(self)
        self._kernel = pd._kernel
        self._buf, self._huge_length, self._owns_buffer = 0, 0, False
        failure = f"Failed to register a device MR. length: {length}, access flags: {access}"
        size = U64(length)
        command = memory_messages.RegDmMr(pd._opened(), dm._opened(), U64(offset), size, I32(access))
        response = self._execute(command, failure)
        self._handle, self._length = response.handle, size
        self._dm = dm
        self._join(pd, response)
        self._children_of(dm)

    def _children_of(self, dm: DM) -> None:
        dm._children.setdefault("dm_mrs", WeakValueDictionary())[id(self)] = self

    def _release(self) -> None:
        super()._release()
        self._dm = None  # type: ignore[assignment]

    def write(self, data: Any, length: int, offset: int = 0) -> None:
        """Copy `length` bytes of `data` (str or bytes) to `offset` in the device memory."""
        self._opened()
        self._dm.copy_to_dm(offset, data, length)

    def read(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset` in the device memory."""
        self._opened()
        return self._dm.copy_from_dm(offset, length)


class DmaBufMR(MR):
    """A region of `length` bytes of a dma-buf from `offset` on; its addresses are offsets in the buffer (`buf` is 0).

    `dmabuf` is a DmaBuf or the descriptor of one; None: one of its own, of GPU `gpu`, in the host's memory with `gtt`.
    The GPU may move the buffer at any time: the NIC lets go of it first and finds it again by a page fault.
    PyverbsRDMAError: EBADF, EINVAL (no dma-buf, outside of it, `access` other than local and remote access); the errors
    of DmaBuf. PyverbsError: what is read or written is not in the buffer.
    """

    __slots__ = ("_dmabuf", "_fd", "_internal", "_offset")

    def __init__(
        self, pd: PD, length: int, access: int, dmabuf: Any = None, offset: int = 0, gpu: int = 0, gtt: int = 0
    ) -> None:
        expect(pd, PD, "pd")
        Resource.__init__(self)
        self._kernel = pd._kernel
        self._buf, self._huge_length, self._owns_buffer = 0, 0, False
        size, self._offset, flags = U64(length), U64(offset), I32(access)
        self._internal = DmaBuf(size + self._offset, gpu, gtt) if dmabuf is None else None
        self._dmabuf = self._internal or dmabuf
        self._fd = self._dmabuf.fd if isinstance(self._dmabuf, DmaBuf) else I32(self._dmabuf)
        failure = f"Failed to register a dma-buf MR. length: {length}, access flags: {access}"
        command = memory_messages.RegDmabufMr(pd._opened(), self._offset, size, self._offset, self._fd, flags)
        try:
            response = self._execute(command, failure)
        except PyverbsError:
            self._close_internal()
            raise
        self._handle, self._length = response.handle, size
        self._join(pd, response)
        if isinstance(self._dmabuf, DmaBuf):
            self._dmabuf._children.setdefault("dmabuf_mrs", WeakValueDictionary())[id(self)] = self

    def _destroy(self, handle: int) -> None:
        self._execute(memory_messages.DeregMr(handle), "Failed to dereg dma-buf MR")

    def _release(self) -> None:
        super()._release()
        self._close_internal()
        self._dmabuf = None

    def _close_internal(self) -> None:
        internal, self._internal = self._internal, None
        if internal is not None:
            internal.close()

    @property
    def offset(self) -> int:
        """Where the region begins in the dma-buf, bytes."""
        return self._offset

    @property
    def dmabuf(self) -> Any:
        """The DmaBuf, or the descriptor that was given; None when closed."""
        return self._dmabuf

    def write(self, data: Any, length: int, offset: int = 0) -> None:
        """Copy `length` bytes of `data` (str or bytes) to `offset` in the region, through a mapping of the buffer."""
        at, size = self._offset + I32(offset), U64(length)
        self._map(size, lambda process: process.dma_buf_write(self._fd, at, as_bytes(data, size)))

    def read(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset` in the region, through a mapping of the buffer."""
        at, size = self._offset + I32(offset), U64(length)
        data: bytes = self._map(size, lambda process: process.dma_buf_read(self._fd, at, size))
        return data

    def _map(self, size: int, copy: Any) -> Any:
        self._opened()
        try:
            return copy(self._kernel.process)
        except OSError as error:
            raise PyverbsError(f"Failed to map dma-buf of size {size}") from error
