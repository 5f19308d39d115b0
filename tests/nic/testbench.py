"""A NIC on a bench: one device, model frames, and the few lines of driver that a block test needs.

No host threads: commands run the engine until their EQE is there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nicemu.abi import rings
from nicemu.abi.command import (
    ADDRESS_VECTOR,
    COMMAND,
    COMMAND_BYTES,
    COMMAND_SLOTS,
    AvField,
    Command,
    Status,
)
from nicemu.abi.rings import EQE, EQE_BYTES, Doorbell, Eqn
from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.config import NicProfile
from nicemu.lab.fuzz.bench import default_image
from nicemu.memory import Frames
from nicemu.nic import firmware
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World
from nicemu.tables.records import INFINITY, Stop
from nicemu.tables.trace import Ev
from nicemu.tables.wheel import due
from nicemu.tables.world import Capacity
from tests.nic.objects import ALL, SLOTS, Cq, Mr, Qp, Ring, Srq

SLICE_NS, MOST_EVENTS = 1_000_000_000, 200_000


class Bench:
    """One NIC, its EQs, commands and time."""

    def __init__(
        self,
        profile: NicProfile | None = None,
        mutants: tuple[str, ...] = (),
        ram_pages: int = 4096,
        firmware_image: firmware.Image | None = None,
    ) -> None:
        self.world = World(Capacity(nics=1))
        self.engine = Engine(self.world)
        self.frames = Frames(self.world, ram_pages, ram_pages)
        control = self.world.control[0]
        control.graveyard, control.sanitizer, control.epoch = self.frames.graveyard, 1, 1
        image = firmware_image or default_image()
        self.device = Device(self.world, 0, profile or NicProfile(), image, mutants)
        self.power_up()

    def power_up(self) -> None:
        """What a driver gives a device first: the command ring and event queues."""
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
        """Run the engine, collecting interrupts. A device that never comes to rest fails the test."""
        control = self.world.control[0]
        most = control.ran + MOST_EVENTS
        while True:
            end = min(until, due(self.world.address) + SLICE_NS)
            stop = self.engine.run(end)
            if stop == Stop.INTERRUPT:
                self.interrupts += self.engine.interrupts()
            elif stop == Stop.DEADLINE and end < until:
                assert control.ran < most, f"{MOST_EVENTS:,} events, and no end"
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
        self.command(
            Command.CREATE_MKEY,
            mr.index,
            mr.key,
            self.pd if pd is None else pd,
            mr.va,
            pages * 4096,
            access,
            1,
            mr.index,
        )
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

    def ah(self, number: int, gid: bytes, multicast: bool = False, sgid: int = 3, pd: int | None = None) -> int:
        """An address handle for ``gid`` on this NIC; gives its number. GID table entry ``sgid`` is its source."""
        own = self.device.gids[sgid]
        for index, raw, kind in ((sgid, own, 2),):
            self.command(Command.SET_GID, index, *halves(raw), kind)
        words = [0] * len(AvField)
        words[AvField.DEST_NIC], words[AvField.SGID_INDEX] = 1, sgid
        words[AvField.DGID_HIGH], words[AvField.DGID_LOW] = halves(gid)
        words[AvField.HOP_LIMIT], words[AvField.MULTICAST] = 64, int(multicast)
        self.mailbox[: ADDRESS_VECTOR.size] = np.frombuffer(ADDRESS_VECTOR.pack(*words), np.uint8)
        self.command(Command.CREATE_AH, number, self.pd if pd is None else pd)
        return number

    def faults(self) -> list[dict[str, int]]:
        """Page-fault EQEs, decoded."""
        found = []
        for kind, subtype, first, token, key, va, committed, last, *_ in self.events(Eqn.PAGE_FAULT):
            found.append(
                dict(
                    kind=kind,
                    subtype=subtype,
                    qpn=first & 0xFFFFFFFF,
                    type=first >> 32,
                    token=token,
                    key=key,
                    va=va,
                    committed=committed,
                    last=last & 0xFFFFFFFF,
                    pages=last >> 32,
                )
            )
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
        self.run(due(self.world.address))
        return True

    def trace(self) -> list[tuple[Ev, int, int, int, int, int]]:
        """The event log since it was switched on (``log()``): (kind, time, a, b, c, d)."""
        count = int(self.world.control[0].trace_count)
        return [
            (Ev(int(r.kind)), int(r.time), int(r.a), int(r.b), int(r.c), int(r.d)) for r in self.world.trace[:count]
        ]

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


def halves(gid: bytes) -> tuple[int, int]:
    """The two big-endian halves of a GID, as the device takes them."""
    return tuple(int.from_bytes(half, "big", signed=True) for half in (gid[:8], gid[8:]))  # type: ignore[return-value]


def pair(bench: Bench, slots: int = 256, max_sge: int = 4, kind: int = QpType.RC, **changes: int) -> tuple[Qp, Qp]:
    """Two connected QPs, RC or UC, each with a CQ of its own (``a.cq``, ``b.cq``)."""
    a, b = Qp(bench, 2, Cq(bench, 1, slots), max_sge, kind), Qp(bench, 3, Cq(bench, 2, slots), max_sge, kind)
    a.connect(b, **changes)
    b.connect(a, **changes)
    return a, b


__all__ = ["ALL", "SLOTS", "Bench", "Cq", "Mr", "Qp", "Ring", "Srq", "WrOpcode", "halves", "pair"]
