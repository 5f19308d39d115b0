"""A graphics device that exports dma-bufs: buffers in its own memory (VRAM) or in the host's (GTT), which it moves.

A move is TTM's in broad lines (``ttm_bo_handle_move_mem``): with the reservation held, new pages, ``move_notify`` to
the importers, then a copy by the device's engine whose end is a fence; the old pages go with the fence. The new pages
have no contents before that: a device that does not wait for the fence reads poison. A VRAM that is full makes room by
moving its oldest buffers to the host.

Left out: command submission, a GPU's own page tables, buffers of less than a page; VRAM is taken from the host's RAM.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.dma_buf import DmaBuf, Inode, dma_buf_get, move_notify, open_inodes, wait_for_move
from nicemu.mm.page import Fault
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host

VRAM_BYTES = 256 << 20
"""Of each device (chosen: the BAR that GPUs without a resizable one show)."""
DEVICES = 1
"""``/dev/dri/renderD128`` alone."""


@dataclass(eq=False, slots=True)
class Buffer:
    """A GEM object: ``gtt`` says where it is, ``handle`` what its creator calls it (0: closed)."""

    dma_buf: DmaBuf
    gtt: bool
    handle: int
    drm_fd: int


class Gpu:
    """``/dev/dri/renderD128``."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.buffers: dict[int, Buffer] = {}
        """By handle, oldest first."""
        self.exported: dict[Inode, DmaBuf] = {}
        """By inode: until the last handle, descriptor and attachment is gone."""
        self._handles = 0

    @property
    def vram_used(self) -> int:
        """Bytes."""
        return sum(buffer.dma_buf.size for buffer in self.buffers.values() if not buffer.gtt)

    def create(self, size: int, gtt: bool) -> Steps[Buffer]:
        """``DRM_IOCTL_AMDGPU_GEM_CREATE`` and ``DRM_IOCTL_PRIME_HANDLE_TO_FD``: zeroed.

        :raises OSError: EINVAL, no size; ENOMEM, more than there is of that memory, or no descriptors (EMFILE).
        """
        if size <= 0:
            raise OSError(errno.EINVAL, f"GPU: a buffer of {size} bytes")
        if -(-size // PAGE_SIZE) > self.host.frames.ram_pages:
            raise OSError(errno.ENOMEM, f"GPU: a buffer of {size} bytes is more than the memory")
        yield from self.reap()
        if not gtt:
            yield from self._make_room(size)
        dma_buf = DmaBuf(self.host, size)
        try:
            dma_buf.frames = yield from self._allocate(dma_buf, dma_buf.addresses)
            buffer = self._enter(dma_buf, gtt)
        except OSError:
            self.host.pages.put_many(dma_buf.frames)
            os.close(dma_buf.fd)
            dma_buf.unmap()
            raise
        return buffer

    def _enter(self, dma_buf: DmaBuf, gtt: bool) -> Buffer:
        drm_fd = os.dup(dma_buf.fd)
        self._handles += 1
        assert dma_buf.inode is not None
        self.exported[dma_buf.inode] = dma_buf
        buffer = self.buffers[self._handles] = Buffer(dma_buf, gtt, self._handles, drm_fd)
        return buffer

    def close(self, handle: int) -> Steps[None]:
        """``DRM_IOCTL_GEM_CLOSE``, and the descriptors that creating it gave. :raises OSError: EINVAL, no such handle.

        The memory stays while an importer is attached, or the program has a duplicate of the descriptor.
        """
        if handle not in self.buffers:
            raise OSError(errno.EINVAL, f"GPU: no buffer has handle {handle}")
        buffer = self.buffers.pop(handle)
        buffer.handle = 0
        for fd in (buffer.dma_buf.fd, buffer.drm_fd):
            buffer.dma_buf.close_fd(fd)
        yield from self.reap()

    def reap(self) -> Steps[None]:
        """Free the buffers that nobody can reach any more (the last ``dma_buf_put``). A descriptor that the program
        closed by itself, and the end of the last attachment, are noticed here."""
        named = {id(buffer.dma_buf) for buffer in self.buffers.values()}
        unused = [(inode, dma_buf) for inode, dma_buf in self.exported.items()
                  if id(dma_buf) not in named and not dma_buf.attachments]  # fmt: skip
        inodes = open_inodes() if unused else set()
        for inode, dma_buf in unused:
            if inode not in inodes and inode in self.exported:
                yield from self._free(inode, dma_buf)

    def _free(self, inode: Inode, dma_buf: DmaBuf) -> Steps[None]:
        del self.exported[inode]
        thread = self.host.thread
        yield from dma_buf.resv.acquire(thread)
        try:
            yield from wait_for_move(dma_buf)
            self.host.pages.put_many(dma_buf.frames)
            dma_buf.frames = np.empty(0, np.int64)
            dma_buf.unmap()
        finally:
            dma_buf.resv.release(thread)

    def get(self, fd: int) -> DmaBuf:
        """``dma_buf_get``. :raises OSError: EBADF, EINVAL."""
        return dma_buf_get(self.exported, fd)

    def close_files(self) -> None:
        """The run is over: give all descriptors and mappings back."""
        for buffer in self.buffers.values():
            for fd in (buffer.dma_buf.fd, buffer.drm_fd):
                buffer.dma_buf.close_fd(fd)
        for dma_buf in self.exported.values():
            dma_buf.unmap()

    # Moving -------------------------------------------------------------------------------------------------------

    def move(self, dma_buf: DmaBuf, gtt: bool | None = None) -> Steps[Completion]:
        """Move a buffer to other pages; ``gtt``: of the host's memory, of VRAM, or None: of where it is. Returns when
        every importer's device has let go of the old pages; the fence it gives completes with the copy.

        :raises OSError: ENOMEM, it stays where it is; ENOENT, it was freed meanwhile.
        """
        buffer = next((b for b in self.buffers.values() if b.dma_buf is dma_buf), None)
        if buffer is not None and gtt is False and buffer.gtt:
            yield from self._make_room(dma_buf.size)
        thread = self.host.thread
        thread.context.append("dma_buf_move")
        yield from dma_buf.resv.acquire(thread)
        try:
            yield from wait_for_move(dma_buf)
            if not len(dma_buf.frames):
                raise OSError(errno.ENOENT, "GPU: the buffer to move was freed")
            new = yield from self._allocate(dma_buf, self.host.frames.graveyard)
            yield from move_notify(dma_buf)
            old, dma_buf.frames = dma_buf.frames, new
            self.host.frames.stamp_invalidated(old, "dma_buf_move")
            fence = dma_buf.fence = Completion(self.host.scheduler, "dma_fence of a move")
            self.host.scheduler.spawn(self._copy(dma_buf, old, fence), "gpu-copy")
            self.host.counters["dma_buf_move"] += 1
            if buffer is not None and gtt is not None:
                buffer.gtt = gtt
        finally:
            dma_buf.resv.release(thread)
            thread.context.pop()
        return fence

    def move_if_possible(self, dma_buf: DmaBuf, gtt: bool | None) -> Steps[None]:
        """A move that nobody waits for: of a buffer that is gone, or without memory, nothing happens."""
        with contextlib.suppress(OSError):
            yield from self.move(dma_buf, gtt)

    def _copy(self, dma_buf: DmaBuf, old: np.ndarray, fence: Completion) -> Steps[None]:
        """The engine's copy: afterwards the new pages have the bytes, and the old ones are free."""
        yield Sleep(self.host.costs.copy_page_ns * len(old))
        self.host.pages.pointers[dma_buf.frames] = dma_buf.addresses
        self.host.pages.put_many(old)
        dma_buf.fence = None
        fence.complete()

    def _make_room(self, size: int) -> Steps[None]:
        """``ttm_bo_evict_first``: the oldest buffers of VRAM go to the host until ``size`` bytes are free.

        :raises OSError: ENOMEM, VRAM is smaller than that.
        """
        if size > VRAM_BYTES:
            raise OSError(errno.ENOMEM, f"GPU: VRAM has no {size} bytes")
        while self.vram_used + size > VRAM_BYTES:
            oldest = next(buffer for buffer in self.buffers.values() if not buffer.gtt)
            yield from self.move(oldest.dma_buf, gtt=True)

    def _allocate(self, dma_buf: DmaBuf, pointers: np.ndarray | int) -> Steps[np.ndarray]:
        try:
            return (yield from self.host.alloc_pages(FrameKind.PROGRAM, dma_buf.pages, pointers))
        except Fault as error:
            raise OSError(error.errno, f"GPU: {error.strerror}") from error
