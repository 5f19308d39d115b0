"""Buffers that devices share (``drivers/dma-buf/dma-buf.c``): an exporter owns the pages, importers attach.

A dynamic importer does not pin. It maps its attachment while it holds the buffer's reservation lock, waits there for
the fence of a move that is still copying, and may use the pages until the exporter calls ``move_notify``: when that
returns, no device uses the old pages any more, and the next map gives the new ones. Lock order: dma_resv > fs_reclaim,
dma_resv > command slot; nothing of an address space is touched under it.

A descriptor is found by its inode, so a duplicate of it is as good. Left out: static importers and pinning, fences of
readers and writers, mapping for one direction only.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory import arena as real_memory
from nicemu.memory.arena import MAP_SHARED, PROT_READ, PROT_WRITE
from nicemu.mm.locks import Mutex
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host

Inode = tuple[int, int]


class Importer(Protocol):
    """``struct dma_buf_attach_ops``."""

    def move_notify(self) -> Steps[None]:
        """The pages are about to go: returns when its device does not use them any more. The reservation is held."""


@dataclass(eq=False, slots=True)
class Attachment:
    """``struct dma_buf_attachment``. ``frames``: what the importer mapped, None if nothing (``sgt``)."""

    buffer: DmaBuf
    importer: Importer
    frames: np.ndarray | None = None


class DmaBuf:
    """``size`` bytes in whole pages. ``frames``: where they are now; ``fence``: the end of the copy that brings them
    there, None if it is over. The bytes lie in a memfd, where they stay: a program may map it."""

    def __init__(self, host: Host, size: int) -> None:
        self.size = -(-size // PAGE_SIZE) * PAGE_SIZE
        self.resv = Mutex(host.scheduler, "dma_resv")
        self.frames = np.empty(0, np.int64)
        self.fence: Completion | None = None
        self.attachments: list[Attachment] = []
        self.region = host.next_region()
        self.fd = os.memfd_create("dmabuf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        fcntl(self.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self.address = real_memory.mmap(0, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd)
        """Where we have them mapped; 0: freed."""
        self.inode = inode_of(self.fd)

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return self.size // PAGE_SIZE

    @property
    def addresses(self) -> np.ndarray:
        """Host address of each page's bytes."""
        return self.address + np.arange(self.pages) * PAGE_SIZE

    def attach(self, importer: Importer) -> Attachment:
        """``dma_buf_dynamic_attach``."""
        attachment = Attachment(self, importer)
        self.attachments.append(attachment)
        return attachment

    def unmap(self) -> None:
        """The bytes go, as far as we are concerned."""
        address, self.address = self.address, 0
        if address:
            real_memory.munmap(address, self.size)

    def close_fd(self, fd: int) -> None:
        """Close a descriptor unless the program did, whatever has its number now."""
        if inode_of(fd) == self.inode:
            os.close(fd)


def inode_of(fd: int) -> Inode | None:
    """What a descriptor stands for; None: it is closed."""
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return status.st_dev, status.st_ino


def open_inodes() -> set[Inode | None]:
    """What the descriptors of this process stand for."""
    try:
        return {inode_of(int(number)) for number in os.listdir("/proc/self/fd")}
    except OSError:
        return set()


def dma_buf_get(buffers: dict[Inode, DmaBuf], fd: int) -> DmaBuf:
    """The buffer of a descriptor. :raises OSError: EBADF, it is closed; EINVAL, it is something else."""
    inode = inode_of(fd)
    if inode is None:
        raise OSError(errno.EBADF, f"dma-buf: descriptor {fd} is not open")
    if inode not in buffers:
        raise OSError(errno.EINVAL, f"dma-buf: descriptor {fd} is not one of a dma-buf")
    return buffers[inode]


def map_attachment(attachment: Attachment) -> None:
    """``dma_buf_map_attachment``, the reservation held: what is mapped stays until unmapped or moved."""
    if attachment.frames is None:
        attachment.frames = attachment.buffer.frames


def wait_for_move(buffer: DmaBuf) -> Steps[None]:
    """``dma_resv_wait_timeout(DMA_RESV_USAGE_KERNEL)``: the pages have their contents."""
    if buffer.fence is not None:
        yield buffer.fence


def unmap_attachment(attachment: Attachment) -> None:
    """``dma_buf_unmap_attachment``, the reservation held."""
    attachment.frames = None


def move_notify(buffer: DmaBuf) -> Steps[None]:
    """``dma_buf_move_notify``, the reservation held: every importer lets go of the pages."""
    for attachment in list(buffer.attachments):
        yield from attachment.importer.move_notify()
        assert attachment.frames is None, "move_notify: an importer keeps its mapping"
