"""Several NICs on one bench, around a switch: a :class:`Bench` each, on one world and one engine."""

from __future__ import annotations

from typing import Any

from nicemu.abi import rings
from nicemu.abi.command import COMMAND_BYTES, COMMAND_SLOTS
from nicemu.abi.rings import EQE_BYTES, Doorbell, Eqn
from nicemu.config import NicProfile
from nicemu.config.fabric_profile import FabricProfile, Impairment
from nicemu.fabric.fabric import Fabric
from nicemu.memory import Frames
from nicemu.nic import firmware
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World
from nicemu.tables.world import Capacity
from tests.nic.objects import Cq, Qp, Ring
from tests.nic.testbench import Bench, default_image


class End(Bench):
    """One of the NICs: all that a bench has."""

    def __init__(self, star: Star, index: int, profile: NicProfile, image: firmware.Image) -> None:
        self.world, self.engine, self.frames = star.world, star.engine, star.frames
        self.device = Device(self.world, index, profile, image)
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


class Star:
    """``nics`` NICs of one firmware, on wires as ``fabric`` and ``impairments`` say (fields of the YAML)."""

    def __init__(
        self, nics: int, fabric: dict[str, Any], image: firmware.Image | None = None, impairments: tuple = ()
    ) -> None:
        self.world = World(Capacity(nics=nics))
        self.engine = Engine(self.world)
        self.frames = Frames(self.world, 4096, 4096)
        control = self.world.control[0]
        control.graveyard, control.epoch = self.frames.graveyard, 1
        self.ends = [End(self, index, NicProfile(), image or default_image()) for index in range(nics)]
        rules = [Impairment(**fields) for fields in impairments]
        self.fabric = Fabric(self.world, FabricProfile(**fabric), rules)

    def connected(self, source: int, target: int, number: int, **changes: int) -> tuple[Qp, Qp]:
        """A QP ``number`` of NIC ``source`` (from 0), connected with one of the same number of NIC ``target``."""
        pair = [Qp(self.ends[nic], number, Cq(self.ends[nic], number)) for nic in (source, target)]
        for qp, peer, nic in ((pair[0], pair[1], target), (pair[1], pair[0], source)):
            qp.connect(peer, DEST_NIC=nic + 1, **changes)
        return pair[0], pair[1]

    def run_for(self, ns: int) -> None:
        """Let ``ns`` pass."""
        self.ends[0].run_for(ns)

    def queued(self, nic: int) -> int:
        """Bytes in the switch's output queue of a NIC (from 0)."""
        return int(self.world.link[2 * (nic + 1)].bytes_queued)
