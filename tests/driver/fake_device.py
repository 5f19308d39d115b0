"""A device of dicts: it executes commands after a delay, posts EQEs and raises interrupts through the timeline."""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from nicemu.abi.command import (
    ADDRESS_VECTOR,
    COMMAND,
    COMMAND_BYTES,
    QP_CONTEXT,
    Command,
    QpField,
    Rereg,
    Status,
)
from nicemu.abi.rings import EQE, EQE_BYTES, Doorbell, EqeType, Eqn, FaultSubtype, owner
from nicemu.abi.verbs import QpState
from nicemu.tables.records import Stop

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

    def idle(self) -> bool:
        return not self._heap

    def interrupts(self) -> Iterable[tuple[int, int]]:
        raised, self.raised = self.raised, []
        return raised

    def error(self, stop: int) -> Exception:
        return RuntimeError(Stop(stop).name)

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
