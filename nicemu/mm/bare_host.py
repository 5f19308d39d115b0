"""A host on its own: one program, a timeline, the events it logged, and no NIC. For tests, tools and generated docs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from nicemu.config.host_profile import HostProfile
from nicemu.memory.arena import Arena
from nicemu.memory.frames import Frames
from nicemu.mm.host import Host
from nicemu.mm.syscalls import Process
from nicemu.tables.records import Stop
from nicemu.tables.world import Capacity, World
from nicemu.timeline.host import Scheduler, Steps
from nicemu.timeline.loop import Timeline


class NoDevice:
    """An engine without events: time is what host threads make it."""

    def __init__(self, world: World) -> None:
        self.now = memoryview(world.control.view(np.ndarray)["now"])

    def run(self, until: int) -> int:
        """Nothing is due."""
        return Stop.IDLE

    def idle(self) -> bool:
        """Always."""
        return True

    def enter(self) -> None:
        """Nothing: who moves bytes counts the epochs itself."""

    def interrupts(self) -> list[Any]:
        """None."""
        return []

    def error(self, stop: int) -> Exception:
        """Never asked for."""
        return RuntimeError(stop)

    def set_time(self, time: int) -> None:
        """Time never goes back."""
        self.now[0] = max(time, self.now[0])


class BareHost:
    """A host, its timeline, the events it logged. The program has model memory, or ``arena``; costs are those of
    ``configs/host/linux.yaml``. Without kswapd there are no watermarks."""

    frame_ids = 1 << 19
    """How many frames there can be, resting ids among them."""

    def __init__(self, discipline: str = "v6.12", ram: int = 4096, swap: int = 4096, arena: Arena | None = None,
                 kswapd: bool = False) -> None:  # fmt: skip
        self.world = World(Capacity(frames=self.frame_ids, nodes=1 << 14, packets=64, events=64, qps=4, cqs=4, mkeys=4,
                                    sq_entries=64))  # fmt: skip
        self.world.control[0].stamp = 1
        self.frames = Frames(self.world, ram, model_pages=ram)
        engine = NoDevice(self.world)
        self.scheduler = Scheduler(lambda: int(engine.now[0]))
        self.timeline = Timeline(engine, self.scheduler, lambda _: None)
        self.events: list[tuple[str, dict[str, Any]]] = []
        checked = HostProfile(ram_pages=ram, swap_pages=swap, min_free_pages=None if kswapd else 0)
        profile = SimpleNamespace(**dict(checked))  # may be changed
        self.host = Host(self.world, self.frames, self.scheduler, profile, discipline, self.log, kswapd)
        self.host.arena = arena
        self.mm = self.host.new_address_space("program")
        self.process = Process(self.host, arena, self.mm, "arena" if arena else "model")

    def log(self, kind: str, **fields: Any) -> None:
        """An event of the host."""
        self.events.append((kind, fields))

    def run(self, steps: Steps[Any], name: str = "program") -> Any:
        """Run a host thread to its end and give its result."""
        return self.timeline.call(steps, name)
