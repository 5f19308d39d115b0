"""A host with the driver on it, a fake device and a fake address space: no compiled code.

The device executes commands against dicts after a delay, posts EQEs and raises interrupts through the timeline. The
address space has the real notifiers and a page table that tests change as they like.
"""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from nicemu.abi.command import (
    ADDRESS_VECTOR,
    COMMAND,
    COMMAND_BYTES,
    MTT_FRAME_SHIFT,
    QP_CONTEXT,
    Command,
    QpField,
    Rereg,
    Status,
)
from nicemu.abi.rings import EQE, EQE_BYTES, Doorbell, EqeType, Eqn, FaultSubtype, owner
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE, QpState
from nicemu.config import NicProfile
from nicemu.config.host_profile import HostCosts
from nicemu.driver import Driver, Options, context, mr, pd
from nicemu.driver.context import Context
from nicemu.driver.mr import Mr
from nicemu.mm.interval import IntervalNotifiers
from nicemu.mm.lockdep import Lockdep, lockdep_of
from nicemu.mm.locks import RwSemaphore, Srcu
from nicemu.mm.memlock import Memlock
from nicemu.mm.notifier import Event, NotifierChain, NotifierRange, invalidate_range_end, invalidate_range_start
from nicemu.mm.page import Fault
from nicemu.tables.records import Stop
from nicemu.timeline import HostThread, Scheduler, Steps, Timeline

GID = bytes.fromhex("fe8000000000000002163efffe000001")
COMMAND_NS, UPDATE_NS, ZAP_NS, INTERRUPT_NS = 2_000, 9_000, 13_800, 2_000


class FakeEngine:
    """Device events in time order; interrupts stop it."""

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.raised: list[tuple[int, int]] = []

    def after(self, ns: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + ns, self._order, action))

    def enter(self) -> None:
        """Nothing to check."""

    def run(self, until: int) -> Stop:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            if self.raised:
                return Stop.INTERRUPT
        return Stop.DEADLINE if self._heap else Stop.IDLE

    def interrupts(self) -> Iterable[tuple[int, int]]:
        raised, self.raised = self.raised, []
        return raised

    def error(self, stop: Stop) -> Exception:
        return RuntimeError(stop.name)

    def set_time(self, time: int) -> None:
        self.now = max(self.now, time)


class FakeEq:
    """The device's side of an event queue."""

    def __init__(self, ring: int, slots: int) -> None:
        self.ring, self.slots, self.produced, self.armed = ring, slots, 0, False


class FakeDevice:
    """Executes commands ``COMMAND_NS`` after their doorbell (UPDATE_MTT: ``UPDATE_NS``). ``log``: in that order.

    ZAP_MTT clears at once and completes ``zap_ns`` after the doorbell.
    """

    def __init__(self, engine: FakeEngine, profile: Any, index: int = 0) -> None:
        self.engine, self.profile, self.index, self.name = engine, profile, index, f"nicemu{index}"
        self.guid = 0x0216_3EFF_FE00_0001
        self.gids: list[bytes | None] = [GID, GID] + [None] * (profile.gid_tbl_len - 2)
        self.gid_types = [1, 2] + [0] * (profile.gid_tbl_len - 2)
        self.zap_ns = ZAP_NS
        self.last_key = 0
        """Key that DESTROY_MKEY tells, if not the one it was made with."""
        self.memory = np.full(profile.max_dm_size, 0xDB, np.uint8)
        self.eqs: dict[int, FakeEq] = {}
        self.mkeys: dict[int, SimpleNamespace] = {}
        self.cqs: dict[int, tuple[int, ...]] = {}
        self.qps: dict[int, dict[int, int]] = {}
        self.srqs: dict[int, SimpleNamespace] = {}
        self.ahs: dict[int, tuple[int, ...]] = {}
        self.members: set[tuple[int, ...]] = set()
        self.places: dict[tuple[int, ...], tuple[int, ...]] = {}
        """Keys of ring and record in memory of the program, by owner and number."""
        self.log: list[tuple[Command, tuple[int, ...]]] = []
        self.refuse: dict[Command, Status] = {}
        self.resumed: list[tuple[int, int]] = []
        self.sq_entries: set[int] = set()
        self.tags: set[int] = set()
        self.watched: list[tuple[int, bool]] = []
        self.doorbells: list[tuple[int, int]] = []
        self.port_active = True

    # What the driver may touch

    def set_command_ring(self, address: int) -> None:
        self.command_ring = address

    def attach_eq(self, eqn: int, ring_address: int, slots: int, record_address: int) -> None:
        self.eqs[eqn] = FakeEq(ring_address, slots)

    def allocate_sq_entries(self, slots: int) -> int:
        first = 1 + 100_000 * len(self.sq_entries)
        self.sq_entries.add(first)
        return first

    def free_sq_entries(self, first: int, slots: int) -> None:
        self.sq_entries.remove(first)

    def allocate_tags(self, count: int) -> int:
        first = 1 + 1000 * len(self.tags)
        self.tags.add(first)
        return first

    def free_tags(self, first: int, count: int) -> None:
        self.tags.remove(first)

    def route(self, dgid: bytes) -> int:
        return self.index + 1 if dgid in self.gids else 0

    def clock(self) -> int:
        return self.engine.now

    def watch(self, number: int, on: bool) -> None:
        self.watched.append((number, on))

    def write_doorbell(self, offset: int, value: int) -> None:
        bank, number = offset >> 24, (offset & 0xFFFFFF) >> 3
        self.doorbells.append((bank, number))
        if bank == Doorbell.EQ_ARM:
            self.eqs[number].armed = True
        elif bank == Doorbell.COMMAND:
            slot = ctypes.string_at(self.command_ring + number * COMMAND_BYTES, COMMAND_BYTES)
            opcode, _, *params, mailbox = COMMAND.unpack(slot)
            delay = UPDATE_NS if opcode == Command.UPDATE_MTT else COMMAND_NS
            self.engine.after(delay, lambda: self._execute(number, Command(opcode), tuple(params), mailbox))

    # Commands

    def _execute(self, slot: int, opcode: Command, p: tuple[int, ...], mailbox: int) -> None:
        self.log.append((opcode, p))
        status = self.refuse.get(opcode, Status.OK)
        if status == Status.OK:
            status = getattr(self, f"_{opcode.name.lower()}")(p, mailbox) or Status.OK
        delay = self.zap_ns - COMMAND_NS if opcode == Command.ZAP_MTT else 0
        done = partial(self.post, Eqn.COMMAND, EqeType.CMD, 0, (slot, status, 0, 0, 0, 0))
        self.engine.after(delay, done) if delay else done()

    def _create_mkey(self, p: tuple[int, ...], mailbox: int) -> None:
        assert p[0] not in self.mkeys
        self.mkeys[p[0]] = SimpleNamespace(
            key=p[1], pd=p[2], base=p[3], length=p[4], access=p[5], flags=p[6], skew=p[8], page_shift=p[9], mtt={}
        )

    def _destroy_mkey(self, p: tuple[int, ...], mailbox: int) -> None:
        key = self.last_key or self.mkeys[p[0]].key
        ctypes.memmove(mailbox, key.to_bytes(8, "little"), 8)
        del self.mkeys[p[0]]

    def _create_cq(self, p: tuple[int, ...], mailbox: int) -> None:
        self.cqs[p[0]] = p

    def _destroy_cq(self, p: tuple[int, ...], mailbox: int) -> None:
        del self.cqs[p[0]]

    def _resize_cq(self, p: tuple[int, ...], mailbox: int) -> None:
        self.cqs[p[0]] = (*self.cqs[p[0]][:1], *p[1:3], *self.cqs[p[0]][3:])

    def _place_rings(self, p: tuple[int, ...], mailbox: int) -> None:
        assert all(key == 0 or key in self.mkeys for key in p[2:4])
        self.places[p[:2]] = p[2:4]

    def _modify_cq(self, p: tuple[int, ...], mailbox: int) -> None:
        assert p[0] in self.cqs

    def _set_gid(self, p: tuple[int, ...], mailbox: int) -> None:
        """The table is ``gids``."""

    def _create_qp(self, p: tuple[int, ...], mailbox: int) -> None:
        self.qps[p[0]] = dict.fromkeys(QpField, 0)

    def _destroy_qp(self, p: tuple[int, ...], mailbox: int) -> None:
        del self.qps[p[0]]

    def _modify_qp(self, p: tuple[int, ...], mailbox: int) -> None:
        words = QP_CONTEXT.unpack(ctypes.string_at(mailbox, QP_CONTEXT.size))
        self.qps[p[0]] = dict(zip(QpField, words, strict=True))

    def _query_qp(self, p: tuple[int, ...], mailbox: int) -> None:
        ctypes.memmove(mailbox, QP_CONTEXT.pack(*self.qps[p[0]].values()), QP_CONTEXT.size)

    def _modify_mkey(self, p: tuple[int, ...], mailbox: int) -> Status | None:
        mkey = self.mkeys[p[0]]
        mkey.key = p[2]
        if p[1] & Rereg.PD:
            mkey.pd = p[3]
        if p[1] & Rereg.ACCESS:
            mkey.access = p[6]
        if p[1] & Rereg.TRANSLATION:
            mkey.base, mkey.length, mkey.flags, mkey.skew, mkey.page_shift = p[4], p[5], p[7], p[8], p[9]
            mkey.mtt.clear()
        return None

    def _alloc_dm(self, p: tuple[int, ...], mailbox: int) -> None:
        self.memory[p[0] : p[0] + p[1]] = 0

    def _free_dm(self, p: tuple[int, ...], mailbox: int) -> None:
        self.memory[p[0] : p[0] + p[1]] = 0xDB

    def _create_srq(self, p: tuple[int, ...], mailbox: int) -> None:
        names = ("number", "pd", "ring", "slots", "stride", "record", "type", "xrcd", "cq")
        self.srqs[p[0]] = SimpleNamespace(**dict(zip(names, p, strict=False)), limit=0)

    def _modify_srq(self, p: tuple[int, ...], mailbox: int) -> None:
        self.srqs[p[0]].limit = p[1]

    def _query_srq(self, p: tuple[int, ...], mailbox: int) -> None:
        ctypes.memmove(mailbox, self.srqs[p[0]].limit.to_bytes(8, "little"), 8)

    def _resize_srq(self, p: tuple[int, ...], mailbox: int) -> None:
        self.srqs[p[0]].ring, self.srqs[p[0]].slots = p[1:3]

    def _destroy_srq(self, p: tuple[int, ...], mailbox: int) -> None:
        del self.srqs[p[0]]

    def _create_ah(self, p: tuple[int, ...], mailbox: int) -> None:
        self.ahs[p[0]] = ADDRESS_VECTOR.unpack(ctypes.string_at(mailbox, ADDRESS_VECTOR.size))

    def _destroy_ah(self, p: tuple[int, ...], mailbox: int) -> None:
        del self.ahs[p[0]]

    def _create_flow(self, p: tuple[int, ...], mailbox: int) -> None:
        """Its frames are not modelled here; nor are those of the next three."""

    _destroy_flow = _create_rqt = _destroy_rqt = _create_flow

    def _attach_mcast(self, p: tuple[int, ...], mailbox: int) -> None:
        self.members.add(p[:3])

    def _detach_mcast(self, p: tuple[int, ...], mailbox: int) -> None:
        self.members.remove(p[:3])

    def _update_mtt(self, p: tuple[int, ...], mailbox: int) -> None:
        entries = np.frombuffer(ctypes.string_at(mailbox, 8 * p[2]), "<i8")
        self.mkeys[p[0]].mtt.update((p[1] + i, int(entry)) for i, entry in enumerate(entries))

    def _zap_mtt(self, p: tuple[int, ...], mailbox: int) -> Status | None:
        if p[0] not in self.mkeys:
            return Status.BAD_RESOURCE
        for page in range(p[1], p[1] + p[2]):
            self.mkeys[p[0]].mtt.pop(page, None)
        return None

    def _page_fault_resume(self, p: tuple[int, ...], mailbox: int) -> None:
        self.resumed.append(p[:2])

    # Events

    def post(self, eqn: int, kind: int, subtype: int, words: tuple[int, ...]) -> None:
        eq = self.eqs[eqn]
        at = eq.ring + (eq.produced & (eq.slots - 1)) * EQE_BYTES
        time = self.engine.now & 0xFFFFFFFF
        ctypes.memmove(at, EQE.pack(kind, subtype, *words, time, owner(eq.produced, eq.slots)), EQE_BYTES)
        eq.produced += 1
        if eq.armed:
            eq.armed = False
            self.engine.after(INTERRUPT_NS, lambda: self.engine.raised.append((self.index, eqn)))

    def rdma_fault(self, token: int, key: int, va: int, left: int, pages: int = 0, committed: int = 0) -> None:
        """A responder met a missing page at ``va``, with ``left`` bytes of the operation to do."""
        words = (1, token, key, va, committed, left | pages << 32)
        self.post(Eqn.PAGE_FAULT, EqeType.PAGE_FAULT, FaultSubtype.RDMA, words)

    def set_state(self, qpn: int, state: QpState) -> None:
        """The QP moved by itself."""
        self.qps[qpn][QpField.STATE] = state


@dataclass
class FakeHost:
    """What notifiers use of the host."""

    scheduler: Scheduler
    discipline: Any
    srcu: Srcu
    lockdep: Lockdep

    @property
    def thread(self) -> HostThread:
        assert self.scheduler.current is not None
        return self.scheduler.current

    def broken(self, mutant: str) -> bool:
        return False


class FakeMm:
    """An address space with the real notifiers. ``table``: frame of each page, made when faulted in."""

    def __init__(self, scheduler: Scheduler, discipline: Any) -> None:
        self.scheduler = scheduler
        self.host: Any = FakeHost(scheduler, discipline, Srcu(scheduler), lockdep_of(scheduler))
        self.users = 1
        self.table: dict[int, int] = {}
        self.absent: set[int] = set()
        self.pinned: dict[int, int] = {}
        self.memlock = Memlock()
        self.fault_ns = 1_500
        self.faulted: list[tuple[int, int, bool]] = []
        self.during_fault: Callable[[], Steps[None]] | None = None
        self._next = 100
        self.notifiers = NotifierChain(self)  # type: ignore[arg-type]
        self.intervals = IntervalNotifiers(self)  # type: ignore[arg-type]
        self.mmap_lock = RwSemaphore(scheduler, "mmap_lock")

    def event(self, *_: Any, **__: Any) -> None:
        pass

    def adopt(self, address: int, length: int) -> None:
        pass

    def _frames(self, address: int, pages: int) -> np.ndarray:
        first = address >> PAGE_SHIFT
        for page in range(first, first + pages):
            if page in self.absent:
                raise Fault.bad_address(page << PAGE_SHIFT)
            if page not in self.table:
                self._next += 1
                self.table[page] = self._next
        return np.array([self.table[page] << 1 | 1 for page in range(first, first + pages)], np.int64)

    def fault_in(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        self.faulted.append((address, pages, write))
        frames = self._frames(address, pages)
        yield self.fault_ns
        if self.during_fault is not None:
            hook, self.during_fault = self.during_fault, None
            yield from hook()
        return frames

    def snapshot(self, address: int, pages: int) -> Steps[list[tuple[int, np.ndarray]]]:
        first = address >> PAGE_SHIFT
        yield 0
        present = sorted(page for page in self.table if first <= page < first + pages)
        return [(page, np.array([self.table[page] << 1 | 1], np.int64)) for page in present]

    def pin(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        frames = self._frames(address, pages)
        yield self.fault_ns
        for frame in frames >> 1:
            self.pinned[int(frame)] = self.pinned.get(int(frame), 0) + 1
        return frames

    def unpin(self, frames: np.ndarray) -> None:
        for frame in frames:
            self.pinned[int(frame)] -= 1

    def zap(self, start: int, end: int, operation: str = "madvise", blockable: bool = True) -> Steps[bool]:
        """Take pages away as madvise(DONTNEED) does: notify, clear, notify."""
        thread = self.scheduler.current
        assert thread is not None
        thread.context.append(operation)
        event = Event.PROTECTION_PAGE if operation == "fork" else Event.CLEAR
        bounds = NotifierRange(self, start, end, event, operation, blockable)  # type: ignore[arg-type]
        ok = yield from invalidate_range_start(bounds)
        if ok:
            for page in [page for page in self.table if start <= page << PAGE_SHIFT < end]:
                del self.table[page]
            yield from invalidate_range_end(bounds)
        thread.context.pop()
        return ok


class Bench:
    """The driver, one device, one process. ``call`` runs a host thread to its end."""

    def __init__(self, discipline: str = "v6.12", profile: Any = None, **options: Any) -> None:
        from nicemu.mm.discipline import discipline as find

        self.engine = FakeEngine()
        self.scheduler = Scheduler(lambda: self.engine.now)
        self.timeline = Timeline(self.engine, self.scheduler, lambda messages: self.driver.deliver(messages))
        self.device = FakeDevice(self.engine, profile or NicProfile())
        self.costs = HostCosts()
        options.setdefault("subscriber", "interval" if discipline == "v6.12" else "chain")
        self.driver = Driver(self.scheduler, [self.device], self.costs, lambda: 7, Options(**options))
        self.mm = FakeMm(self.scheduler, find(discipline))

    @property
    def now(self) -> int:
        return self.engine.now

    def call(self, steps: Steps[Any]) -> Any:
        return self.timeline.call(steps, "test")

    def spawn(self, steps: Steps[Any], name: str = "other") -> Any:
        thread = self.scheduler.spawn(steps, name)
        thread.joined = True
        return thread

    def run(self) -> None:
        """Until nothing is left to do."""
        self.timeline.advance(lambda: False)

    def open(self) -> Context:
        return context.open_device(self.driver, "nicemu0", self.mm)

    def region(
        self, access: int, pages: int = 4, address: int = 0x100000, length: int = 0, iova: int | None = None
    ) -> Mr:
        """An MR in a new PD of a new context."""
        domain = pd.allocate(self.open())
        length = length or pages * PAGE_SIZE
        region: Mr = self.call(mr.register(domain, address, length, access, address if iova is None else iova))
        return region

    def frames_of(self, region: Mr) -> dict[int, int]:
        """The device's view: frame of each page it can translate."""
        mtt = self.device.mkeys[region.index].mtt
        return {page: (entry >> MTT_FRAME_SHIFT) & (1 << 30) - 1 for page, entry in mtt.items()}
