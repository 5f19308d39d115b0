"""System calls on graphics buffers: the part of a process that libdrm would use, with errno as Linux gives it."""

from __future__ import annotations

import ctypes
import errno

from nicemu.mm.dma_buf import DmaBuf, wait_for_move
from nicemu.mm.gpu import DEVICES, Buffer
from nicemu.mm.host import Host
from nicemu.timeline.host import Completion, Steps


class GpuCalls:
    """What a process may ask a graphics device for."""

    host: Host

    def gem_create(self, size: int, gpu: int = 0, gtt: bool = False) -> Steps[Buffer]:
        """A buffer of a GPU and its descriptors. :raises OSError: ENOENT, no such GPU; EINVAL, ENOMEM, EMFILE."""
        yield self.host.costs.syscall_ns
        if not 0 <= gpu < DEVICES:
            raise OSError(errno.ENOENT, f"/dev/dri/renderD{128 + gpu}: no such GPU")
        return (yield from self.host.gpu.create(size, gtt))

    def gem_close(self, handle: int) -> Steps[None]:
        """Give a buffer and its descriptors back. :raises OSError: EINVAL."""
        yield self.host.costs.syscall_ns
        yield from self.host.gpu.close(handle)

    def dma_buf_read(self, fd: int, offset: int, length: int) -> Steps[bytes]:
        """The CPU reads through a mapping of the buffer. :raises OSError: EBADF; EINVAL, also where it ends."""
        address = yield from self._mapping(fd, offset, length)
        return ctypes.string_at(address, length)

    def dma_buf_write(self, fd: int, offset: int, data: bytes) -> Steps[None]:
        """The CPU writes through a mapping of the buffer. :raises OSError: as for reading."""
        address = yield from self._mapping(fd, offset, len(data))
        ctypes.memmove(address, data, len(data))

    def dma_buf_move(self, fd: int, gtt: bool | None = None) -> Steps[Completion]:
        """Make the GPU move a buffer: see :meth:`nicemu.mm.gpu.Gpu.move`. :raises OSError: EBADF, EINVAL, ENOMEM."""
        yield self.host.costs.syscall_ns
        return (yield from self.host.gpu.move(self.host.gpu.get(fd), gtt))

    def _mapping(self, fd: int, offset: int, length: int) -> Steps[int]:
        """``mmap`` and the fault in it, which waits for a move; gives the address."""
        yield self.host.costs.syscall_ns
        buffer: DmaBuf = self.host.gpu.get(fd)
        if offset < 0 or length < 0 or offset + length > buffer.size:
            raise OSError(errno.EINVAL, f"dma-buf: no {length} bytes at {offset} of {buffer.size}")
        thread = self.host.thread
        yield from buffer.resv.acquire(thread)
        try:
            yield from wait_for_move(buffer)
            yield self.host.costs.fault_ns
            if not buffer.address:
                raise OSError(errno.EBADF, "dma-buf: freed meanwhile")
        finally:
            buffer.resv.release(thread)
        return buffer.address + offset
