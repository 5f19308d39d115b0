"""Three NICs on a bench with model frames and no host: commands run the engine until they are answered."""

from __future__ import annotations

from functools import cache

import numpy as np

from nicemu.abi import rings
from nicemu.abi.command import COMMAND, COMMAND_BYTES, COMMAND_SLOTS, Command, mtt_entry
from nicemu.abi.rings import CQE_BYTES, EQE_BYTES, Doorbell, Eqn
from nicemu.config import NicProfile
from nicemu.config.paths import shipped
from nicemu.lab.fuzz.memory import Ram, Region, Rings
from nicemu.lab.fuzz.tables import FuzzTables
from nicemu.memory import Frames
from nicemu.nic import firmware
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World
from nicemu.tables.records import Stop
from nicemu.tables.world import Capacity

NICS, RAM_PAGES, EQ_SLOTS = 3, 512, 4096
CAPACITY = Capacity(
    nics=NICS, qps=256, cqs=256, mkeys=64, eqs=8, srqs=16, ahs=32, mcast=32, gids=8, sq_entries=1 << 15, nodes=1 << 12,
    frames=1 << 11, trace=1 << 17, capture=1 << 13,
)  # fmt: skip


@cache
def default_image() -> firmware.Image:
    """The default firmware."""
    return firmware.load(shipped("firmware") / "default.py")


class Bench:
    """World, NICs, memory; ``tables`` is what the kernels know of them."""

    def __init__(self, profile: NicProfile) -> None:
        self.world = World(CAPACITY)
        self.engine = Engine(self.world)
        frames = Frames(self.world, RAM_PAGES, RAM_PAGES)
        control = self.world.control[0]
        control.graveyard, control.sanitizer, control.epoch = frames.graveyard, 1, 1
        self.ram, self.rings, self.tables = Ram(frames), Rings(), FuzzTables()
        self.command_ring, self.mailbox = [], self.rings.take(1 << 16)
        self.devices = [Device(self.world, i, profile, default_image()) for i in range(NICS)]
        self.regions: list[Region] = []
        for i, device in enumerate(self.devices):
            at = self.rings.take(COMMAND_SLOTS * COMMAND_BYTES)
            self.command_ring.append(at)
            device.set_command_ring(self.rings.address + at)
            for eqn in Eqn:
                self._eq(i + 1, int(eqn))

    def close(self) -> None:
        """Forget the world."""
        self.world.close()
        self.tables.close()

    def address(self, at: int) -> int:
        """Host address of an offset in the rings."""
        return self.rings.address + at

    def _eq(self, nic: int, eqn: int) -> None:
        ring, record = self.rings.take(EQ_SLOTS * EQE_BYTES), self.rings.take(16)
        device = self.devices[nic - 1]
        device.attach_eq(eqn, self.address(ring), EQ_SLOTS, self.address(record))
        device.write_doorbell(rings.doorbell_offset(Doorbell.EQ_ARM, eqn), 0)
        self._queue(int(device.row.eq_base) + eqn, nic, eqn, ring, EQ_SLOTS, record, is_eq=1)

    def _queue(self, row: int, nic: int, number: int, ring: int, slots: int, record: int, is_eq: int = 0) -> None:
        fuzz = self.tables.fuzz[0]
        at = self.tables.queue[int(fuzz.queues)]
        fuzz.queues += 1
        at.row, at.nic, at.number, at.is_eq = row, nic, number, is_eq
        at.ring, at.slots, at.record, at.eqn = self.address(ring), slots, self.address(record), int(Eqn.COMPLETION)

    def command(self, nic: int, opcode: Command, *params: int, mailbox: bytes = b"") -> None:
        """Run one command to its completion; it must succeed."""
        self.rings.write(self.mailbox, mailbox)
        words = [*(int(p) for p in params), *([0] * (14 - len(params)))]
        slot = self.command_ring[nic - 1]
        self.rings.write(slot, COMMAND.pack(opcode, 99, *words, self.address(self.mailbox)))
        device = self.devices[nic - 1]
        device.write_doorbell(rings.doorbell_offset(Doorbell.COMMAND, 0), 0)
        eq = self.world.eq[int(device.row.eq_base) + Eqn.COMMAND]
        before = int(eq.produced)
        while int(eq.produced) == before:
            self.run(self.world.now + 1000)
        status = int.from_bytes(self.rings.bytes[slot + 4 : slot + 8].tobytes(), "little")
        assert status == 0, f"{opcode.name}{params}: status {status}"

    def run(self, until: int) -> None:
        """Run events; interrupts are taken."""
        while True:
            stop = self.engine.run(until)
            if stop == Stop.TRAP:
                raise self.world.trap_error()
            if stop in (Stop.DEADLINE, Stop.IDLE):
                break
            self.world.control[0].interrupts = 0
        self.engine.set_time(until)

    def cq(self, nic: int, number: int, slots: int = 256, watched: bool = True) -> tuple[int, int]:
        """A CQ; its ring and record. ``watched``: the kernels read it."""
        ring, record = self.rings.take(slots * CQE_BYTES), self.rings.take(16)
        self.command(nic, Command.CREATE_CQ, number, self.address(ring), slots, self.address(record), Eqn.COMPLETION)
        if watched:
            self._queue(int(self.devices[nic - 1].row.cq_base) + number, nic, number, ring, slots, record)
        return ring, record

    def region(self, region: Region, mapped: str = "all", flags: int = 1) -> Region:
        """CREATE_MKEY and its translations: ``all``, ``even`` pages, ``read`` only, ``none``; then, if stale, gone."""
        self.command(
            region.nic, Command.CREATE_MKEY, region.index, region.key, region.pd, region.va, region.length,
            region.access, flags, region.index,
        )  # fmt: skip
        if mapped != "none":
            entries = np.array([mtt_entry(int(f), mapped != "read", 0) for f in region.frames], np.int64)
            if mapped == "even":
                entries[1::2] = 0
            self.command(
                region.nic, Command.UPDATE_MTT, region.index, 0, region.pages, mailbox=entries.tobytes()
            )  # fmt: skip
        if not region.valid:
            self.command(region.nic, Command.DESTROY_MKEY, region.index)
        self.regions.append(region)
        self._describe(region)
        return region

    def _describe(self, region: Region) -> None:
        fuzz = self.tables.fuzz[0]
        row = self.tables.region[int(fuzz.regions)]
        fuzz.regions += 1
        numbers, mailbox = self.rings.take(8 * region.pages + 8), self.rings.take(8 * region.pages + 8)
        self.rings.write(numbers, region.frames.tobytes())
        row.nic, row.index, row.key, row.va, row.length = region.nic, region.index, region.key, region.va, region.length
        row.pages, row.frames, row.mailbox = region.pages, self.address(numbers), self.address(mailbox)
        row.usable, row.cold = int(region.pd == 1 and region.valid and region.length > 0), int(region.cold)
