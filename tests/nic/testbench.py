"""A NIC on a bench: one device, model frames, and the few lines of driver that a block test needs.

No host threads: commands run the engine until their EQE is there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

import numpy as np

from nicemu.abi import rings
from nicemu.abi.command import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_SLOTS,
    QP_CONTEXT,
    Command,
    QpField,
    Status,
    mtt_entry,
)
from nicemu.abi.rings import CQE, CQE_BYTES, EQE, EQE_BYTES, SEND_WQE, SGE, Doorbell, Eqn
from nicemu.abi.verbs import Access, QpAttrMask, QpState, SendFlag, WrOpcode
from nicemu.config import NicProfile
from nicemu.config.paths import shipped
from nicemu.memory import Frames
from nicemu.nic import firmware
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World
from nicemu.tables.records import INFINITY, FrameKind, Stop
from nicemu.tables.trace import Ev
from nicemu.tables.world import Capacity, address_of, lazy_bytes

ALL = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC
SLOTS = 64
INIT_MASK = QpAttrMask.STATE | QpAttrMask.ACCESS_FLAGS
RTR_MASK = (QpAttrMask.STATE | QpAttrMask.AV | QpAttrMask.PATH_MTU | QpAttrMask.DEST_QPN | QpAttrMask.RQ_PSN
            | QpAttrMask.MAX_DEST_RD_ATOMIC | QpAttrMask.MIN_RNR_TIMER)
RTS_MASK = (QpAttrMask.STATE | QpAttrMask.TIMEOUT | QpAttrMask.RETRY_CNT | QpAttrMask.RNR_RETRY | QpAttrMask.SQ_PSN
            | QpAttrMask.MAX_QP_RD_ATOMIC)


@cache
def default_image() -> firmware.Image:
    """The default firmware."""
    return firmware.load(shipped("firmware") / "default.py")


class Ring:
    """Zeroed host memory with an address."""

    def __init__(self, size: int) -> None:
        self.bytes = lazy_bytes(size)
        self.address = address_of(self.bytes)
        self.view = memoryview(self.bytes)

    def word(self, offset: int, value: int | None = None) -> int:
        """Read or write an int64."""
        if value is not None:
            struct.pack_into("<q", self.view, offset, value)
        return struct.unpack_from("<q", self.view, offset)[0]


class Mr:
    """A region of model frames: ``va`` is its base, ``data`` its bytes as one array."""

    def __init__(self, bench: Bench, index: int, va: int, pages: int, access: int, with_frames: bool = True) -> None:
        self.bench, self.index, self.key, self.va, self.pages = bench, index, index << 8 | 1, va, pages
        self.frames = [bench.frames.allocate(FrameKind.MODEL) for _ in range(pages if with_frames else 0)]
        self.access = access

    def sge(self, length: int | None = None, offset: int = 0) -> tuple[int, int, int]:
        """A scatter/gather element of this region."""
        return self.va + offset, self.pages * 4096 - offset if length is None else length, self.key

    def map(self, first: int = 0, pages: int | None = None, write: bool = True) -> None:
        """Give the NIC translations of some pages."""
        count = self.pages - first if pages is None else pages
        stamp = int(self.bench.world.control[0].stamp)
        entries = np.array([mtt_entry(f, write, stamp) for f in self.frames[first : first + count]], np.int64)
        self.bench.mailbox[: entries.nbytes] = entries.view(np.uint8)
        self.bench.command(Command.UPDATE_MTT, self.index, first, count)

    def zap(self, first: int, pages: int) -> int:
        """Invalidate; the answer is when it completed, ns."""
        self.bench.command(Command.ZAP_MTT, self.index, first, pages)
        return self.bench.world.now

    def fill(self, seed: int) -> bytes:
        """Random contents."""
        data = np.random.default_rng(seed).integers(0, 256, self.pages * 4096, np.uint8).tobytes()
        for i, frame in enumerate(self.frames):
            self.bench.frames.bytes_of(frame)[:] = np.frombuffer(data[i * 4096 : (i + 1) * 4096], np.uint8)
        return data

    @property
    def data(self) -> bytes:
        """What is in memory."""
        return b"".join(self.bench.frames.bytes_of(frame).tobytes() for frame in self.frames)


class Qp:
    """A QP with its rings."""

    def __init__(self, bench: Bench, number: int, cq: Cq, max_sge: int = 4) -> None:
        self.bench, self.number, self.cq = bench, number, cq
        self.send_stride, self.recv_stride = rings.send_stride(max_sge, 256), rings.recv_stride(max_sge)
        self.send, self.recv = Ring(SLOTS * self.send_stride), Ring(SLOTS * self.recv_stride)
        self.record = Ring(16)
        entries = bench.device.allocate_sq_entries(SLOTS)
        bench.command(Command.CREATE_QP, number, 2, bench.pd, cq.number, cq.number, self.send.address, SLOTS,
                      self.send_stride, self.recv.address, SLOTS, self.recv_stride, self.record.address, 0, entries)

    def modify(self, mask: int, **fields: int) -> None:
        """MODIFY_QP with the named context fields."""
        words = [0] * len(QpField)
        for name, value in fields.items():
            words[QpField[name]] = value
        self.bench.mailbox[: QP_CONTEXT.size] = np.frombuffer(QP_CONTEXT.pack(*words), np.uint8)
        self.bench.command(Command.MODIFY_QP, self.number, int(mask))

    def connect(self, peer: Qp, **changes: int) -> None:
        """INIT, RTR, RTS."""
        values = dict(PATH_MTU=3, TIMEOUT=14, RETRY_CNT=7, RNR_RETRY=7, RQ_PSN=peer.psn, MAX_RD_ATOMIC=4, MIN_RNR_TIMER=1,
                      SQ_PSN=self.psn, MAX_DEST_RD_ATOMIC=4, DEST_QPN=peer.number, DEST_NIC=1) | changes
        access = values.pop("ACCESS", ALL)
        self.modify(INIT_MASK, STATE=QpState.INIT, ACCESS=access)
        self.modify(RTR_MASK, **values | {"STATE": QpState.RTR})
        self.modify(RTS_MASK, **values | {"STATE": QpState.RTS})

    psn = 0xFFFFF0

    def post_recv(self, wr_id: int, *sges: tuple[int, int, int]) -> None:
        """Post a receive WQE."""
        tail = self.record.word(8)
        at = tail % SLOTS * self.recv_stride
        rings.RECV_WQE.pack_into(self.recv.view, at, wr_id, len(sges), 0)
        for i, sge in enumerate(sges):
            SGE.pack_into(self.recv.view, at + 16 + 16 * i, *sge)
        for i in range(len(sges), (self.recv_stride - 16) // 16):
            SGE.pack_into(self.recv.view, at + 16 + 16 * i, 0, 0, 0)
        self.record.word(8, tail + 1)
        self.bench.device.write_doorbell(rings.doorbell_offset(Doorbell.RECV, self.number), 0)

    def post_send(self, wr_id: int, opcode: int, *sges: tuple[int, int, int], remote: int = 0, rkey: int = 0,
                  flags: int = SendFlag.SIGNALED, imm: int = 0, compare: int = 0, swap: int = 0,
                  inline: bytes | None = None) -> None:
        """Post a send WQE and ring the doorbell."""
        tail = self.record.word(0)
        at = tail % SLOTS * self.send_stride
        if inline is not None:
            flags |= SendFlag.INLINE
            self.send.view[at + 64 : at + 64 + len(inline)] = inline
        SEND_WQE.pack_into(self.send.view, at, wr_id, opcode, flags, len(sges), imm, remote, rkey, len(inline or b""),
                           compare, swap, 0, 0)
        for i, sge in enumerate(sges):
            SGE.pack_into(self.send.view, at + 64 + 16 * i, *sge)
        self.record.word(0, tail + 1)
        self.bench.device.write_doorbell(rings.doorbell_offset(Doorbell.SEND, self.number), 0)

    def statuses(self) -> list[tuple[int, int]]:
        """(wr_id, status) of the completions of this QP that are there."""
        return [(cqe["wr_id"], cqe["status"]) for cqe in self.cq.poll()]

    def row(self) -> np.record:
        """The device's row, for looking only."""
        return self.bench.world.qp[int(self.bench.device.row.qp_base) + self.number]


class Cq:
    """A CQ with its ring."""

    def __init__(self, bench: Bench, number: int, slots: int = 256) -> None:
        self.bench, self.number, self.slots = bench, number, slots
        self.ring, self.record = Ring(slots * CQE_BYTES), Ring(16)
        bench.command(Command.CREATE_CQ, number, self.ring.address, slots, self.record.address, Eqn.COMPLETION)

    def poll(self) -> list[dict[str, int]]:
        """All completions that are there."""
        found = []
        names = ("wr_id", "qp_num", "src_qp", "byte_len", "imm", "status", "opcode", "flags", "vendor", "time", "wqe",
                 "pkey", "rsvd", "owner")
        while True:
            head = self.record.word(0)
            values = CQE.unpack_from(self.ring.view, head % self.slots * CQE_BYTES)
            if values[-1] != rings.owner(head, self.slots):
                return found
            found.append(dict(zip(names, values, strict=True)))
            self.record.word(0, head + 1)


class Bench:
    """One NIC, its EQs, commands and time."""

    def __init__(self, profile: NicProfile | None = None, mutants: tuple[str, ...] = (), ram_pages: int = 4096,
                 firmware_image: firmware.Image | None = None) -> None:
        self.world = World(Capacity(nics=1))
        self.engine = Engine(self.world)
        self.frames = Frames(self.world, ram_pages, ram_pages)
        control = self.world.control[0]
        control.graveyard, control.sanitizer, control.epoch = self.frames.graveyard, 1, 1
        image = firmware_image or default_image()
        self.device = Device(self.world, 0, profile or NicProfile(), image, mutants)
        self.pd = 1
        self.commands, self._mailbox = Ring(COMMAND_SLOTS * COMMAND_BYTES), Ring(1 << 20)
        self.mailbox = self._mailbox.bytes
        self.device.set_command_ring(self.commands.address)
        self.eqs: dict[int, tuple[Ring, Ring]] = {}
        for eqn in (*Eqn, Eqn.COMPLETION + 1):
            ring, record = Ring(256 * EQE_BYTES), Ring(16)
            self.device.attach_eq(int(eqn), ring.address, 256, record.address)
            self.eqs[int(eqn)] = ring, record
            self.device.write_doorbell(rings.doorbell_offset(Doorbell.EQ_ARM, int(eqn)), 0)
        self.interrupts: list[tuple[int, int]] = []
        self._next = {"mkey": 0, "va": 0x10_0000_0000}

    def run(self, until: int = INFINITY) -> Stop:
        """Run the engine, collecting interrupts."""
        while True:
            stop = self.engine.run(until)
            if stop == Stop.INTERRUPT:
                self.interrupts += self.engine.interrupts()
            elif stop != Stop.CQE:
                assert stop != Stop.TRAP, self.world.trap_error()
                return stop

    def run_for(self, ns: int) -> None:
        """Let ``ns`` pass."""
        until = self.world.now + ns
        self.run(until)
        self.engine.set_time(until)

    def events(self, eqn: int) -> list[tuple]:
        """Take all EQEs of a queue; re-arm it if there were any."""
        ring, record = self.eqs[eqn]
        found = []
        while True:
            head = record.word(0)
            values = EQE.unpack_from(ring.view, head % 256 * EQE_BYTES)
            if values[-1] != rings.owner(head, 256):
                break
            found.append(values)
            record.word(0, head + 1)
        if found:
            self.device.write_doorbell(rings.doorbell_offset(Doorbell.EQ_ARM, eqn), 0)
        return found

    def submit(self, opcode: int, *params: int, slot: int = 0) -> None:
        """Write a command slot and ring its doorbell."""
        words = [int(p) for p in params] + [0] * (14 - len(params))
        COMMAND.pack_into(self.commands.view, slot * COMMAND_BYTES, opcode, 99, *words, self._mailbox.address)
        self.device.write_doorbell(rings.doorbell_offset(Doorbell.COMMAND, slot), 0)

    def completion(self) -> int:
        """Run to the next command completion and give its status; time stops at the microsecond after it."""
        while not (done := self.events(Eqn.COMMAND)):
            self.run_for(1000)
        return done[0][3]

    def command(self, opcode: int, *params: int, expect: Status = Status.OK) -> None:
        """Run one command to its completion EQE."""
        self.submit(opcode, *params)
        status = self.completion()
        assert status == expect, f"{Command(opcode).name}: status {Status(status).name}, expected {expect.name}"

    def mr(self, pages: int, access: int = ALL, mapped: bool = True) -> Mr:
        """A region of model frames, mapped or not."""
        mr = self._place(pages, access)
        self.command(Command.CREATE_MKEY, mr.index, mr.key, self.pd, mr.va, pages * 4096, access, 1, mr.index)
        if mapped:
            mr.map()
        return mr

    def region(self, pages: int, access: int = ALL, pd: int | None = None) -> Mr:
        """A region of ``pages`` pages with no frame behind it: every access faults."""
        mr = self._place(pages, access, with_frames=False)
        self.command(Command.CREATE_MKEY, mr.index, mr.key, self.pd if pd is None else pd, mr.va, pages * 4096, access, 1,
                     mr.index)
        return mr

    def sub_region(self, mr: Mr, offset: int, length: int) -> Mr:
        """A region of ``length`` bytes over part of another one's frames, mapped."""
        first, last = offset // 4096, (offset + length - 1) // 4096
        small = self._place(last - first + 1, mr.access, with_frames=False)
        small.va, small.frames = mr.va + offset, mr.frames[first : last + 1]
        self.command(Command.CREATE_MKEY, small.index, small.key, self.pd, small.va, length, mr.access, 1, small.index)
        small.map()
        return small

    def _place(self, pages: int, access: int, with_frames: bool = True) -> Mr:
        self._next["mkey"] += 1
        mr = Mr(self, self._next["mkey"], self._next["va"], pages, access, with_frames)
        self._next["va"] += (pages + 16) * 4096
        return mr

    def faults(self) -> list[dict[str, int]]:
        """Page-fault EQEs, decoded."""
        found = []
        for kind, subtype, first, token, key, va, committed, last, *_ in self.events(Eqn.PAGE_FAULT):
            found.append(dict(kind=kind, subtype=subtype, qpn=first & 0xFFFFFFFF, type=first >> 32, token=token, key=key,
                              va=va, committed=committed, last=last & 0xFFFFFFFF, pages=last >> 32))
        return found

    def resume(self, token: int, error: int = 0) -> None:
        """PAGE_FAULT_RESUME."""
        self.command(Command.PAGE_FAULT_RESUME, token, error)

    def fault(self) -> dict[str, int]:
        """Run to the next page-fault EQE; there must be exactly one."""
        found: list[dict[str, int]] = []
        self.step_until(lambda: found.extend(self.faults()) or found)
        assert len(found) == 1, found
        return found[0]

    def step_until(self, done: Callable[[], object]) -> None:
        """Run the events of one time after another until ``done()``."""
        for _ in range(100_000):
            if done():
                return
            assert self.engine_step(), "nothing left to run"
        raise AssertionError("100,000 steps")

    def asyncs(self) -> list[tuple[int, int]]:
        """Async events: (type, number of the object)."""
        return [(subtype, number) for _, subtype, number, *_ in self.events(Eqn.ASYNC)]

    def engine_step(self) -> bool:
        """Run the events of one time; False if none is left."""
        control = self.world.control[0]
        if control.pending == control.stale:
            return False
        self.run(int(self.world.event[0].time))
        return True

    def trace(self) -> list[tuple[Ev, int, int, int, int, int]]:
        """The event log since it was switched on (``log()``): (kind, time, a, b, c, d)."""
        count = int(self.world.control[0].trace_count)
        return [(Ev(int(r.kind)), int(r.time), int(r.a), int(r.b), int(r.c), int(r.d)) for r in self.world.trace[:count]]

    def log(self) -> None:
        """Start the event log anew."""
        control = self.world.control[0]
        control.trace, control.trace_count = 1, 0

    def sent(self) -> list[int]:
        """BTH opcodes that went on the wire since ``log()``."""
        return [a for kind, _, a, *_ in self.trace() if kind == Ev.SEND]

    def dmas(self) -> list[tuple[int, int, int, int]]:
        """Bytes moved since ``log()``: (mkey number, page, bytes, write)."""
        return [tuple(rest) for kind, _, *rest in self.trace() if kind == Ev.DMA]


def pair(bench: Bench, slots: int = 256, max_sge: int = 4, **changes: int) -> tuple[Qp, Qp]:
    """Two connected RC QPs, each with a CQ of its own (``a.cq``, ``b.cq``)."""
    a, b = Qp(bench, 2, Cq(bench, 1, slots), max_sge), Qp(bench, 3, Cq(bench, 2, slots), max_sge)
    a.connect(b, **changes)
    b.connect(a, **changes)
    return a, b


__all__ = ["ALL", "SLOTS", "Bench", "Cq", "Mr", "Qp", "Ring", "WrOpcode", "pair"]
