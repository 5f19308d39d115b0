"""Several NICs on one bench, around a switch: a :class:`Bench` each, on one world and one engine."""

from __future__ import annotations

from typing import Any

from nicemu.config import NicProfile
from nicemu.config.fabric_profile import FabricProfile, Impairment
from nicemu.fabric.fabric import Fabric
from nicemu.memory import Frames
from nicemu.nic import firmware
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World
from nicemu.tables.world import Capacity
from tests.nic.objects import Cq, Qp
from tests.nic.testbench import Bench, default_image


class End(Bench):
    """One of the NICs: all that a bench has."""

    def __init__(self, star: Star, index: int, profile: NicProfile, image: firmware.Image) -> None:
        self.world, self.engine, self.frames = star.world, star.engine, star.frames
        self.device = Device(self.world, index, profile, image)
        self.power_up()


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
