"""The machine: RAM, swap, costs, counters, lock reports, and the address spaces that live on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory.blocks import Blocks
from nicemu.memory.frames import Frames
from nicemu.mm.address_space import AddressSpace
from nicemu.mm.compaction import compact_block
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.discipline import discipline as find_discipline
from nicemu.mm.file import File, FileKind
from nicemu.mm.gpu import Gpu
from nicemu.mm.hugetlb import Hugetlb
from nicemu.mm.ksm import Ksm, ksm_scan
from nicemu.mm.lock_report import Report
from nicemu.mm.lockdep import lockdep_of
from nicemu.mm.locks import RwSemaphore, Srcu
from nicemu.mm.memlock import Memlock
from nicemu.mm.memory_failure import memory_failure
from nicemu.mm.numa import Numa
from nicemu.mm.oom_kill import check_alive, out_of_memory
from nicemu.mm.page import Fault, Pages
from nicemu.mm.page_lock import PageBits
from nicemu.mm.page_table import ENTRIES
from nicemu.mm.reclaim import MAX_RECLAIM_RETRIES, Reclaim
from nicemu.mm.swap import Swap
from nicemu.mm.truncate import evict_inode
from nicemu.mm.vma import AnonVma, Vma
from nicemu.mm.watermark import Watermarks
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, HostThread, Scheduler, Sleep, Steps

if TYPE_CHECKING:
    from nicemu.memory.arena import Arena
    from nicemu.mm.memcg import Memcg
    from nicemu.mm.oom_report import Report as OomReport
    from nicemu.tables.world import World

ENOMEM = 12
SWAP_CLUSTER_MAX = 32


class Host:
    """One machine. ``profile`` has ``costs`` (virtual ns per kernel step), ``ram_pages``, ``swap_pages``,
    ``numa_nodes``;
    ``log(kind, **fields)`` is called for each event with canonical values only."""

    def __init__(self, world: World, frames: Frames, scheduler: Scheduler, profile: Any, discipline: str,
                 log: Callable[..., None] | None = None, kswapd: bool = False) -> None:  # fmt: skip
        self.world, self.frames, self.scheduler, self.profile = world, frames, scheduler, profile
        self.costs = profile.costs
        self.discipline = find_discipline(discipline)
        self.log = log
        self.counters: Counter[str] = Counter()
        self.lockdep = lockdep_of(scheduler)
        self.srcu = Srcu(scheduler)
        self.notifiers_to_free: list[Completion] = []
        """Subscribers after their last ``mmu_notifier_put``."""
        self.pages = Pages(frames)
        self.fault_batch = max(1, min(ENTRIES, frames.ram_pages // 16))
        """Pages that one look at a page table may resolve."""
        self.watermarks = Watermarks.of(profile.ram_pages, profile.min_free_pages)
        self.swap = Swap(self, profile)
        self.reclaim = Reclaim(self, kswapd)
        self.notified: set[tuple[str, str]] = set()
        """(operation, call site) of every notification so far."""
        self.mutants: tuple[str, ...] = ()
        """Deliberate bugs of the mm (``config.mutants``)."""
        self.migrations: dict[int, Completion] = {}
        """Ends of the migrations in progress, by the frame that the migration entries name."""
        self.ksm = Ksm(self)
        self.numa = Numa(self, profile.numa_nodes)
        self.arena: Arena | None = None
        self.anon_vma_of: dict[int, AnonVma] = {}
        self.blocks = Blocks(frames)
        self.transparent_hugepage: Literal["always", "madvise", "never"] = "never"
        """Who gets THP (``/sys/kernel/mm/transparent_hugepage/enabled``)."""
        self.compound_mapcount: dict[int, int] = {}
        """Page tables that map a THP whole, by its head."""
        self.hugetlb = Hugetlb(self)
        self.gpu = Gpu(self)
        self.files: dict[int, File] = {}
        """By number: what ``page.mapping`` of a page-cache page names."""
        self.address_spaces: dict[int, AddressSpace] = {}
        """Those that live, by number."""
        self.memcg: Memcg | None = None
        """The control group that address spaces of this host begin in."""
        self.oom_reports: list[OomReport] = []
        self.console: Callable[[str], None] = lambda text: None
        """Hears what the kernel prints."""
        self.page_locks = PageBits(scheduler, "page lock")
        """PG_locked of pages in a page cache."""
        self.writebacks = PageBits(scheduler, "writeback")
        """PG_writeback of file pages."""
        self.xip_sparse = 0
        """3.x: the zero page of all holes of execute-in-place files, 0 until one was read."""
        self.zero_frame = 0
        """The zero page's frame, 0 until :meth:`zero_page` made it. Not reference counted."""
        self._anon_vmas = self._regions = self._address_spaces = self._files = 0

    @property
    def thread(self) -> HostThread:
        """``current``."""
        thread = self.scheduler.current
        assert thread is not None, "mm operations run in host threads"
        return thread

    @property
    def reports(self) -> list[Report]:
        """What the lock validator and the notifiers complain about, one per (kind, operation, lock, subscriber)."""
        return list(self.lockdep.reports.found.values())

    def broken(self, mutant: str) -> bool:
        """Is this deliberate bug planted?"""
        return mutant in self.mutants

    def zero_page(self) -> Steps[int]:
        """``ZERO_PAGE`` of model memory, made when first needed."""
        if not self.zero_frame:
            frame = int((yield from self.alloc_pages(FrameKind.MODEL, 1))[0])
            self.zero_frame = self._zero_page_once(frame)
        return self.zero_frame

    def _zero_page_once(self, frame: int) -> int:
        """``frame``, unless another thread made the zero page meanwhile."""
        if self.zero_frame:
            self.pages.put(frame)
        return self.zero_frame or frame

    def new_address_space(self, name: str) -> AddressSpace:
        """``mm_alloc``."""
        self._address_spaces += 1
        mm = AddressSpace(self, name, self._address_spaces)
        self.address_spaces[mm.number] = mm
        limit = self.profile.rlimit_memlock_bytes
        mm.memlock = Memlock(None if limit is None else limit // PAGE_SIZE, self.profile.cap_ipc_lock)
        mm.oom_score_adj, mm.memcg = self.profile.oom_score_adj, self.memcg
        return mm

    def oom(self, report: OomReport) -> None:
        """The OOM killer reports."""
        self.oom_reports.append(report)
        self.event("oom", pages=report.pages, victim=report.victim)
        self.console(str(report))

    def ksm_scan(self, pages: int) -> Steps[int]:
        """A step of ksmd: see :func:`nicemu.mm.ksm.ksm_scan`."""
        return ksm_scan(self, pages)

    def memory_failure(self, frame: int) -> Steps[list[AddressSpace]]:
        """A machine check: see :func:`nicemu.mm.memory_failure.memory_failure`."""
        return memory_failure(self, frame)

    def compact(self) -> Steps[int]:
        """``echo 1 > /proc/sys/vm/compact_memory``, one step: see :func:`nicemu.mm.compaction.compact_block`."""
        return compact_block(self)

    def event(self, kind: str, **fields: int | str) -> None:
        """Log an event."""
        if self.log is not None:
            self.log(kind, **fields)

    def next_region(self) -> int:
        """Number of a new region."""
        self._regions += 1
        return self._regions

    def new_anon_vma(self) -> AnonVma:
        """``anon_vma_alloc``."""
        self._anon_vmas += 1
        anon_vma = AnonVma(self._anon_vmas, RwSemaphore(self.scheduler, "anon_vma"))
        self.anon_vma_of[self._anon_vmas] = anon_vma
        return anon_vma

    def new_file(self, name: str, kind: FileKind = FileKind.REGULAR, size: int = 0, linked: bool = True) -> File:
        """``new_inode``: an empty file (a hole) of ``size`` bytes.

        :raises NotInThisKernel: execute-in-place after 3.x, DAX before it.
        """
        if kind == FileKind.XIP:
            self.discipline.site("xip_unmap")
        if kind == FileKind.DAX and not self.discipline.interval:
            raise NotInThisKernel(f"DAX: {self.discipline.name} has no such thing")
        self._files += 1
        file = File(self._files, name, self.scheduler, kind, size, self.next_region(),
                    mutex=not self.discipline.interval, linked=linked)  # fmt: skip
        self.files[file.number] = file
        return file

    def drop_files(self, vmas: list[Vma]) -> Steps[None]:
        """``fput`` of what was mapped: files without a name and users go."""
        for file in dict.fromkeys(vma.file for vma in vmas if vma.file is not None):
            if file.unused:
                yield from evict_inode(self, file)

    def alloc_pages(self, kind: FrameKind, count: int, pointers: np.ndarray | int = 0,
                    mm: AddressSpace | None = None) -> Steps[np.ndarray]:  # fmt: skip
        """``alloc_pages_bulk``: frames with one reference each, after direct reclaim if there are too few.

        ``mm``: whom they are for, and whose control group pays; None: the kernel.
        :raises Fault: ENOMEM, nothing can be reclaimed, and the OOM killer found nobody else; Killed, it chose ``mm``.
        """
        self.lockdep.might_alloc(self.thread)
        group = mm.memcg if mm is not None else None
        while True:
            if mm is not None:
                check_alive(mm)
            if group is not None and not (yield from group.try_charge(count)):
                if not (yield from out_of_memory(self, count, mm, group)):
                    raise Fault(ENOMEM, 0, self._refusal(mm, group))
                continue
            frames = yield from self._get_free_pages(kind, count, pointers)
            if frames is not None:
                if group is not None:
                    group.commit(frames)
                return frames
            if group is not None:
                group.cancel(count)
            if not (yield from out_of_memory(self, count, mm)):
                raise Fault(ENOMEM, 0, self._refusal(mm))

    def get_page_from_freelist(self, kind: FrameKind, pointer: int, mm: AddressSpace) -> int:
        """:meth:`alloc_pages` of one page where nothing has to be waited for; 0: it has to be called."""
        frames, watermarks = self.frames, self.watermarks
        free = frames.ram_pages - frames.allocated - 1
        if free < watermarks.min or mm.memcg is not None or mm.killed:
            return 0
        self.lockdep.might_alloc(self.thread)
        if free < watermarks.low:
            self.reclaim.wakeup_kswapd(1)
        return frames.allocate(kind, pointer)

    def _refusal(self, mm: AddressSpace | None, group: Memcg | None = None) -> str:
        """Why an allocation fails."""
        if mm is not None and mm.killed:
            return f"process {mm.number} ({mm.name}) was killed: {mm.killed}"
        where = f"in group {group.name}, limit {group.limit}" if group is not None else f"of {self.frames.ram_pages}"
        free = max(group.limit - group.usage, 0) if group is not None else self.frames.available
        return f"out of memory: {free} pages free {where}"

    def _get_free_pages(self, kind: FrameKind, count: int, pointers: np.ndarray | int) -> Steps[np.ndarray | None]:
        """``__alloc_pages_slowpath``: None after direct reclaim in vain."""
        for attempt in range(MAX_RECLAIM_RETRIES):
            free = self.frames.available - count
            self.reclaim.wakeup_kswapd(count)
            if free >= self.watermarks.min:
                return self.frames.allocate_many(kind, count, pointers)
            freed = yield from self._perform_reclaim(max(self.watermarks.min - free, SWAP_CLUSTER_MAX))
            if not freed and not self.reclaim.running:
                break
            if not freed:
                yield Sleep(self.costs.swap_write_ns << attempt)  # ``reclaim_throttle``: others are at it
        return None

    def _perform_reclaim(self, pages: int) -> Steps[int]:
        """``__perform_reclaim``: direct reclaim, inside ``fs_reclaim``; pages freed."""
        thread = self.thread
        self.lockdep.fs_reclaim.enter(thread)
        try:
            return (yield from self.reclaim.direct(pages))
        finally:
            self.lockdep.fs_reclaim.exit(thread)
