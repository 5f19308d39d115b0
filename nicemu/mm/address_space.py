"""``mm_struct``: areas, page table, locks and notifiers of one process, and the operations on them.

Every operation is a generator of host-thread steps. Addresses are bytes; ranges are whole pages. ``real`` says that
the program asked us to do the operation, so memory it mapped itself is changed as well; arena memory always is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import numpy as np

from nicemu.memory.arena import MODEL_BASE, MODEL_BYTES, Arena
from nicemu.mm import fault, zap
from nicemu.mm.filemap import vma_is_fsdax, vma_needs_dirty_tracking
from nicemu.mm.fork import dup_mmap
from nicemu.mm.huge_memory import thp_alignment
from nicemu.mm.interval import IntervalNotifiers
from nicemu.mm.locks import RwSemaphore, SpinLock
from nicemu.mm.memlock import Memlock
from nicemu.mm.mprotect import do_mprotect
from nicemu.mm.mremap import do_mremap, mremap_to
from nicemu.mm.notifier import ADDRESS_END, NotifierChain
from nicemu.mm.oom_kill import check_alive
from nicemu.mm.page import ARENA, MODEL, PAGE_SHIFT, PG_FILE, PG_KSM, PG_UNEVICTABLE, Fault
from nicemu.mm.page_table import MAPS, PFN_SHIFT, PRESENT, WRITE, PageTable
from nicemu.mm.rmap import maps, rmap_places
from nicemu.mm.vma import VM_READ, VM_SHARED, VM_WRITE, Region, Vma, VmaTree
from nicemu.mm.zap import USER_END
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, HostThread, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host
    from nicemu.mm.memcg import Memcg
    from nicemu.mm.userfaultfd import Userfaultfd

T = TypeVar("T")
PAGE_SIZE = 1 << PAGE_SHIFT


class AddressSpace:
    """One process's memory."""

    def __init__(self, host: Host, name: str, number: int) -> None:
        self.host, self.name, self.number = host, name, number
        self.arena: Arena | None = host.arena
        self.users = 1
        """``mm_users``: 0 when the address space is being torn down."""
        self.owns_memory = True
        """Arena and program pages have their bytes in this process (not so in a forked child)."""
        self.vmas = VmaTree()
        self.page_table = PageTable(host.world)
        self.mmap_lock = RwSemaphore(host.scheduler, "mmap_lock")
        self.page_table_lock = SpinLock(host.scheduler, "page_table_lock")
        self.memlock = Memlock()
        self.memcg: Memcg | None = None
        self.is_program = True
        """The real program's; not so a forked child's."""
        self.oom_score_adj = 0
        self.killed = ""
        """Why the OOM killer killed it."""
        self.dying: Completion | None = None
        """Killed and not yet gone; completes when it is."""
        self.oom_skip = False
        """``MMF_OOM_SKIP``: nothing is to be had here any more."""
        self.notifiers = NotifierChain(self)
        self.intervals = IntervalNotifiers(self)
        self.placed_by_system = 0
        """Areas that were adopted outside the window of mappings: the seed does not say where they lie."""
        self.node = 0
        """NUMA node of the CPUs that its threads run on."""
        self.locked_vm = 0
        """Pages in VM_LOCKED areas."""
        self.userfaultfd: Userfaultfd | None = None

    # System calls ----------------------------------------------------------------------------------------------------

    def mmap(self, length: int, prot: int, kind: FrameKind, address: int = 0, alignment: int = PAGE_SIZE) -> Steps[int]:
        """Map private anonymous memory, at ``address`` (over what is there) or where there is room.

        :raises OSError: ENOMEM, EINVAL.
        """
        with self._operation("mmap") as thread:
            yield from self.mmap_lock.acquire_write(thread)
            try:
                if address:
                    yield from zap.do_munmap(self, address, address + length, True)
                    if kind == ARENA:
                        self._need_arena().map(address, length, prot)
                else:
                    alignment = max(alignment, thp_alignment(self, length)) if kind == MODEL else alignment
                    address = self.unmapped_area(kind, length, prot, alignment)
                self._add_area(address, address + length, prot, kind)
                yield self.host.costs.syscall_ns
            finally:
                self.mmap_lock.release(thread)
        return address

    def munmap(self, address: int, length: int, real: bool = True) -> Steps[None]:
        """Unmap; parts that are not mapped are no error."""
        return self.locked("munmap", zap.do_munmap(self, address, address + length, real))

    def mprotect(self, address: int, length: int, prot: int, real: bool = True) -> Steps[None]:
        """Change permissions. :raises OSError: ENOMEM, part of the range is not mapped."""
        return self.locked("mprotect", do_mprotect(self, address, address + length, prot, real))

    def mremap_to(self, address: int, old_length: int, new_length: int, new: int) -> Steps[int]:
        """MREMAP_FIXED: move to ``new``, over what is there."""
        return self.locked("mremap", mremap_to(self, address, old_length, new_length, new))

    def mremap(self, address: int, old_length: int, new_length: int, may_move: bool = True) -> Steps[int]:
        """Resize or move one mapping; gives its address."""
        return self.locked("mremap", do_mremap(self, address, old_length, new_length, may_move))

    def fork(self, name: str) -> Steps[AddressSpace]:
        """The child's address space."""
        with self._operation("fork") as thread:
            yield self.host.costs.syscall_ns
            child = self.host.new_address_space(name)
            child.is_program, child.memcg = False, self.memcg
            yield from self.mmap_lock.acquire_write(thread)
            try:
                yield from dup_mmap(self, child)
            except OSError:
                yield from zap.exit_mmap(child)
                raise
            finally:
                self.mmap_lock.release(thread)
        return child

    def exit(self) -> Steps[None]:
        """``mmput`` by the last user. One that the OOM killer has ended already is gone."""
        if self.number not in self.host.address_spaces:
            return
        del self.host.address_spaces[self.number]
        with self._operation("exit") as thread:
            self.users = 0
            yield from self.mmap_lock.acquire_write(thread)  # ``__khugepaged_exit``: until a collapse is over
            self.mmap_lock.release(thread)
            yield from zap.exit_mmap(self)
        self.dead()

    @property
    def may_be_killed(self) -> bool:
        """The OOM killer may end it."""
        return not self.is_program or self.host.profile.oom_kills_program

    def dead(self) -> None:
        """The OOM killer has nothing to expect here any more (``MMF_OOM_SKIP``)."""
        self.oom_skip = True
        if self.dying is not None:
            self.dying.complete()
            self.dying = None

    # What the driver uses --------------------------------------------------------------------------------------------

    def adopt(self, address: int, length: int, region: int | None = None) -> int:
        """Make program areas of what is not mapped yet in the pages of [address, address + length); gives how many.

        Addresses inside the arena and the model window are left as they are: nothing is mapped there. ``region``
        names new pages in logs (default: the next region number)."""
        start, end = address & -PAGE_SIZE, -(-(address + length) // PAGE_SIZE) * PAGE_SIZE
        made = 0
        for a, b in self.vmas.holes(start, end):
            if self._reserved(a) or self._reserved(b - 1):
                continue
            self._add_area(a, b, VM_READ | VM_WRITE, FrameKind.PROGRAM, region)
            self.placed_by_system += self.arena is None or a not in self.arena.mapped
            made += 1
        return made

    def fault_in(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        """``hmm_range_fault``: see :func:`nicemu.mm.fault.fault_in`."""
        return fault.fault_in(self, address, pages, write)

    def fault_in_page(self, address: int, write: bool) -> Steps[int]:
        """The same for one page: its ``frame << 1 | writable``."""
        return fault.fault_in_page(self, address >> PAGE_SHIFT, write)

    def snapshot(self, address: int, pages: int) -> Steps[list[tuple[int, np.ndarray]]]:
        """``hmm_range_fault`` without faulting: see :func:`nicemu.mm.fault.snapshot`."""
        return fault.snapshot(self, address, pages)

    def pin(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        """``pin_user_pages(FOLL_LONGTERM)``: as :meth:`fault_in`, and the frames stay until :meth:`unpin`. Breaks COW
        first if the area is writable, which memory of the program may turn out not to be."""
        vma, last = self.vmas.find(address), (address >> PAGE_SHIFT) + pages
        private = vma is not None and vma.allows(True) and not vma.flags & VM_SHARED
        breaks_cow = write or (vma is not None and private and vma.last_page >= last)
        self._check_longterm(vma, write)
        try:
            return (yield from fault.fault_in(self, address, pages, breaks_cow, pin=True))
        except Fault as error:
            if write or not breaks_cow or error.errno != errno.EFAULT:
                raise
        return (yield from fault.fault_in(self, address, pages, False, pin=True))

    def _check_longterm(self, vma: Vma | None, write: bool) -> None:
        """``check_vma_flags`` of FOLL_LONGTERM. :raises Fault: what 6.12 does not pin: DAX (EOPNOTSUPP), and for
        writing a file whose writeback would miss what the device writes (EFAULT)."""
        if vma is None or vma.file is None or not self.host.discipline.interval:
            return
        if vma_is_fsdax(vma):
            raise Fault(errno.EOPNOTSUPP, vma.start, "a long-term pin of DAX memory")
        if write and vma_needs_dirty_tracking(vma):
            raise Fault.bad_address(vma.start, "a long-term pin of a file mapping that tracks dirty pages")

    def unpin(self, frames: np.ndarray) -> None:
        """``unpin_user_pages`` of frame ids."""
        fault.unpin(self, np.asarray(frames, np.int64))

    def copy_from_user(self, address: int, length: int) -> Steps[bytes]:
        """The program's CPU reads."""
        return fault.copy_from_user(self, address, length)

    def copy_to_user(self, address: int, data: bytes) -> Steps[None]:
        """The program's CPU writes."""
        return fault.copy_to_user(self, address, data)

    # What the operations use -----------------------------------------------------------------------------------------

    def event(self, kind: str, start: int, end: int, **fields: int | str) -> None:
        """Log an event about [start, end) by region and page within it."""
        if self.host.log is None:
            return
        vma = self.vmas.find(start)
        where = vma.canonical(start >> PAGE_SHIFT) if vma is not None else 0
        self.host.log(kind, mm=self.number, region=where >> 36, page=where & (1 << 36) - 1,
                      pages=end - start >> PAGE_SHIFT, **fields)  # fmt: skip

    def flush_tlb(self, start: int, end: int, operation: str) -> None:
        """``flush_tlb_range``; 0, 0: all. Subscribers that walk the CPU's tables flush with it (6.12)."""
        self.event("tlb_flush", start, end, operation=operation)
        if self.host.discipline.interval:
            self.notifiers.arch_invalidate_secondary_tlbs(start, end or ADDRESS_END)

    def unmapped_area(self, kind: FrameKind, length: int, prot: int, alignment: int = PAGE_SIZE) -> int:
        """``get_unmapped_area``; arena memory is really mapped there."""
        if kind == ARENA:
            return self._need_arena().map(0, length, prot, alignment)
        start = self.vmas.gap(length + alignment - PAGE_SIZE, *self.model_window)
        if not start:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return -(-start // alignment) * alignment

    @property
    def model_window(self) -> tuple[int, int]:
        """Addresses of model memory."""
        low = self.arena.model_base if self.arena is not None else MODEL_BASE
        return low, low + MODEL_BYTES

    def _reserved(self, address: int) -> bool:
        low, high = self.model_window
        return low <= address < high or (self.arena is not None and address in self.arena)

    def room_at(self, kind: FrameKind, address: int, length: int) -> bool:
        """Could a mapping grow into [address, address + length)?"""
        if kind == ARENA:
            return self.owns_memory and self._need_arena().space.is_free(address, length)
        return not self.vmas.overlapping(address, address + length)

    def frames_in(self, start: int, end: int) -> np.ndarray:
        """Frames mapped in [start, end) now, without the zero page."""
        entries = self.page_table.entries(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
        frames = entries[(entries & MAPS) != 0] >> PFN_SHIFT
        counted: np.ndarray = frames[frames != self.host.zero_frame]
        return counted

    @property
    def mirrored(self) -> bool:
        """A device may have translations made here. Otherwise pages that others map as well are none of its business:
        what a forked child unmaps stays where the device found it, in the parent."""
        return self.owns_memory or bool(self.notifiers.subscribers) or any(True for _ in self.intervals)

    def populated(self, start: int, end: int) -> bool:
        """Is any leaf there?"""
        return any(True for _ in self.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT))

    def stamp_range(self, start: int, end: int, operation: str) -> None:
        """An invalidation of the range has returned. Pinned pages stay the device's, so they get no stamp."""
        frames = self.frames_in(start, end)
        if len(frames) == 1:
            self.stamp_page(int(frames[0]), operation, start, end)
        else:
            self.stamp_invalidated(frames, operation, start, end)

    def stamp_invalidated(self, frames: np.ndarray, operation: str, start: int = 0, end: int = USER_END,
                          ours: int = 1) -> None:  # fmt: skip
        """The same for some frames that were mapped in [start, end). A page that others map as well stays theirs: a
        device may have found it there, in another address space than this one or, a page of KSM or of a file, at
        another address. ``ours``: how many times we map each still."""
        frames, pages = self._not_pinned(frames), self.host.pages
        elsewhere = pages.mapcounts[frames] > ours
        if elsewhere.any():
            frames = frames[~elsewhere | (self.mirrored & (pages.all_flags[frames] & PG_KSM == 0))]
        frames = self._last_places(frames, start, end)
        if len(frames):
            self.host.frames.stamp_invalidated(frames, operation)

    def stamp_page(self, frame: int, operation: str, start: int, end: int, ours: int = 1) -> None:
        """The same for one frame, which we map ``ours`` times still in [start, end)."""
        pages = self.host.pages
        if frame == self.host.zero_frame or pages.pins[frame] or self._elsewhere(frame, start, end):
            return
        if pages.mapcount[frame] <= ours or (self.mirrored and not pages.flags[frame] & PG_KSM):
            self.host.frames.stamp_invalidated(frame, operation)

    def stamp_protected(self, frames: np.ndarray, operation: str) -> None:
        """The notifier has returned and these frames are write-protected."""
        frames = self._not_pinned(frames)
        frames = self._last_places(frames, 0, 0, WRITE)
        if len(frames):
            self.host.frames.stamp_protected(frames, operation)

    def _last_places(self, frames: np.ndarray, start: int, end: int, need: int = PRESENT) -> np.ndarray:
        """Those that no device may use through another place."""
        shared = (self.host.pages.all_flags[frames] & (PG_FILE | PG_UNEVICTABLE)) != 0
        if not shared.any():
            return frames
        elsewhere = [self._elsewhere(frame, start, end, need) for frame in frames[shared].tolist()]
        shared[np.flatnonzero(shared)[np.logical_not(elsewhere)]] = False
        last: np.ndarray = frames[~shared]
        return last

    def _elsewhere(self, frame: int, start: int, end: int, need: int = PRESENT) -> bool:
        """Is a page of a file mapped at another place than [start, end) of this address space, where a device may
        have a translation that stays valid?"""
        if frame and frame == self.host.xip_sparse:
            return self.host.pages.mapcount[frame] > 1
        if not self.host.pages.flags[frame] & PG_FILE:
            return False
        return any(
            vma.mm.mirrored and maps(vma.mm.page_table, page, frame) and vma.mm.page_table.get(page) & need
            and not (vma.mm is self and start <= page << PAGE_SHIFT < end)
            for vma, page in rmap_places(self.host, frame)
        )  # fmt: skip

    def _not_pinned(self, frames: np.ndarray) -> np.ndarray:
        ours: np.ndarray = frames[self.host.pages.all_pins[frames] == 0]
        return ours

    def retire_isolated(self, start: int, end: int) -> None:
        """Frames that reclaim or migration has unmapped have no entry any more but still point at real memory."""
        pages = self.host.pages
        for frame in self.host.reclaim.isolated:
            at = pages.pointer[frame]
            if pages.kind[frame] != MODEL and start <= at < end and not maps(self.page_table, at >> PAGE_SHIFT, frame):
                self.host.frames.retire(frame)

    @overload
    def pointers(self, vma: Vma, page: int) -> int: ...
    @overload
    def pointers(self, vma: Vma, page: np.ndarray) -> np.ndarray | int: ...
    def pointers(self, vma: Vma, page: np.ndarray | int) -> np.ndarray | int:
        """Where the bytes of new frames for these pages are."""
        if vma.kind == MODEL:
            return 0
        return page << PAGE_SHIFT if self.owns_memory else self.host.frames.graveyard

    def _add_area(self, start: int, end: int, prot: int, kind: FrameKind, region: int | None = None) -> None:
        first = start >> PAGE_SHIFT
        number = self.host.next_region() if region is None else region
        self.vmas.insert(Vma(self, start, end, prot, kind, Region(number, first), self.host.new_anon_vma(), first))

    def _need_arena(self) -> Arena:
        if self.arena is None or not self.owns_memory:
            raise OSError(errno.ENOMEM, "this process has no arena")
        return self.arena

    def locked(self, name: str, steps: Steps[T], lock: Literal["", "r", "w"] = "w") -> Steps[T]:
        """A system call: its cost, and then ``steps`` with mmap_lock held for reading, for writing, or not at all."""
        with self._operation(name) as thread:
            yield self.host.costs.syscall_ns
            if lock:
                yield from (self.mmap_lock.acquire_write if lock == "w" else self.mmap_lock.acquire_read)(thread)
            try:
                return (yield from steps)
            finally:
                if lock:
                    self.mmap_lock.release(thread)

    @contextmanager
    def _operation(self, name: str) -> Generator[HostThread, None, None]:
        """Name what the thread does, for lock reports; gives the thread."""
        thread = self.host.thread
        if name != "exit":
            check_alive(self)
        thread.context.append(name)
        try:
            yield thread
        finally:
            thread.context.pop()
