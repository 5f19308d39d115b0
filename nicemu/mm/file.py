"""``struct inode`` with its ``struct address_space`` (page cache, areas that map it), and ``struct file``.

Four kinds of file: a regular one on a block device; shmem, whose backing is swap; execute-in-place (3.x) and DAX
(later), whose pages are the storage itself. All of them hold model pages.

Locks, outermost first: ``i_rwsem`` (write, truncate), ``invalidate_lock`` (faults against truncation: 5.15; 3.x file
systems closed that race each in their own way, the model always does), the page lock, ``i_mmap`` (``i_mmap_mutex`` in
3.x), which protects ``vmas``.

Left out: directories, permissions other than read and write, readahead, errors of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.locks import Mutex, RwSemaphore
from nicemu.timeline.host import HostThread, Scheduler, Steps

if TYPE_CHECKING:
    from nicemu.mm.vma import Vma


class FileKind(IntEnum):
    """Where the pages of a file come from."""

    REGULAR, SHMEM, XIP, DAX = range(4)


@dataclass(eq=False, slots=True)
class File:
    """One inode. ``pages``: page cache, page index -> frame; ``vmas``: ``i_mmap``, areas that map any of it."""

    number: int
    name: str
    scheduler: Scheduler
    kind: FileKind = FileKind.REGULAR
    size: int = 0
    """Bytes."""
    region: int = 0
    """Names its pages in logs."""
    mutex: bool = False
    """``i_mmap`` is a mutex (3.x), not an rw_semaphore."""
    linked: bool = True
    """It has a name. Without one it goes with its last user."""
    opens: int = 0
    """``struct file``s that are open."""
    stable_writes: bool = False
    """The device wants a page to hold still while it is written (``wait_for_stable_page``)."""
    pages: dict[int, int] = field(default_factory=dict)
    vmas: list[Vma] = field(default_factory=list)
    blocks: dict[int, bytes] = field(default_factory=dict)
    """The block device: page index -> bytes of a page. What is not there is a hole."""
    slots: dict[int, int] = field(default_factory=dict)
    """shmem: page index -> swap slot of a page that was swapped out."""
    i_mmap: RwSemaphore = field(init=False)
    i_rwsem: Mutex = field(init=False)
    invalidate_lock: RwSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self.i_mmap = RwSemaphore(self.scheduler, "i_mmap_mutex" if self.mutex else "i_mmap_rwsem")
        self.i_rwsem = Mutex(self.scheduler, "i_rwsem")
        self.invalidate_lock = RwSemaphore(self.scheduler, "invalidate_lock")

    @property
    def end(self) -> int:
        """Index of the first page beyond the end of the file."""
        return -(-self.size // PAGE_SIZE)

    @property
    def direct(self) -> bool:
        """Its pages are the storage: nothing to read, write or reclaim."""
        return self.kind in (FileKind.XIP, FileKind.DAX)

    @property
    def dirty_accounting(self) -> bool:
        """``mapping_can_writeback`` and ``page_mkwrite``: the first write to a clean page faults."""
        return self.kind in (FileKind.REGULAR, FileKind.DAX)

    @property
    def unused(self) -> bool:
        """Nobody can reach it any more."""
        return not self.linked and not self.opens and not self.vmas


@dataclass(eq=False, slots=True)
class OpenFile:
    """``struct file``: an open inode and what it was opened for."""

    inode: File
    readable: bool = True
    writable: bool = True
    closed: bool = False


def i_mmap_lock_read(file: File, thread: HostThread) -> Iterable[Any]:
    """``i_mmap_lock_read``; ``mutex_lock(&mapping->i_mmap_mutex)`` in 3.x. Undone by ``file.i_mmap.release``."""
    return file.i_mmap.acquire_write(thread) if file.mutex else file.i_mmap.acquire_read(thread)


def link_vma(vma: Vma) -> Steps[None]:
    """``vma_link``: put an area into its address space, its file's part under ``i_mmap``."""
    yield from _under_i_mmap(vma, vma.mm.vmas.insert)


def unlink_vma(vma: Vma) -> Steps[None]:
    """``free_pgtables``: take an area out (``unlink_file_vma``, ``unlink_anon_vmas``)."""
    yield from _under_i_mmap(vma, vma.mm.vmas.remove)


def _under_i_mmap(vma: Vma, change: Callable[[Vma], None]) -> Steps[None]:
    if vma.file is None:
        change(vma)
        return
    thread = vma.mm.host.thread
    yield from vma.file.i_mmap.acquire_write(thread)
    change(vma)
    vma.file.i_mmap.release(thread)
