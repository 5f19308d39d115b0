"""One lab: a world, a host with its mm and driver, NICs on one fabric, and the endpoint that programs use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nicemu.config.errors import ConfigError
from nicemu.config.mutants import of_layer
from nicemu.config.paths import shipped
from nicemu.driver import ring
from nicemu.driver.core import Driver, Options
from nicemu.fabric.fabric import Fabric
from nicemu.lab.evict import evictor
from nicemu.lab.hook_check import watch_hooks
from nicemu.lab.inject import Injected, inject
from nicemu.lab.plant import planted
from nicemu.lab.tracing import open_log
from nicemu.lab.watchdog import Watchdog
from nicemu.memory import Frames
from nicemu.memory.arena import Arena
from nicemu.memory.safe_copy import method, scratch
from nicemu.mm.compound import HPAGE_PMD_NR, HPAGE_PUD_NR
from nicemu.mm.host import Host
from nicemu.mm.memcg import Memcg
from nicemu.mm.syscalls import Process
from nicemu.nic import firmware, spread
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.observe.packet_capture import PacketCapture
from nicemu.tables import World
from nicemu.tables.world import Capacity
from nicemu.timeline import Chooser, Scheduler, Timeline, VirtualClock
from nicemu.uverbs.endpoint import Endpoint, LoggedEndpoint

if TYPE_CHECKING:
    from nicemu.observe.event_log import EventLog
    from nicemu.observe.perfetto.log import PerfettoLog


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{option}: expected a file that can be written, given {str(path)!r}: {error.strerror}"
        raise ConfigError(text) from None


def load_firmware(config: Any) -> list[firmware.Image]:
    """The firmware image of each NIC, its hooks compiled.

    :raises FirmwareError: it cannot be read, has no usable hooks, or does not compile.
    """
    default = firmware.load(shipped("firmware") / "default.py")
    images = [default if path == default.path else firmware.load(path, default) for path in config.firmware_paths]
    for image in images:
        image.compile()
    return images


class Lab:
    """Everything of one run.

    Seams: ``clock`` (stepped time), ``chooser`` (steered schedules), ``allocate`` (where rings and records lie).
    """

    def __init__(self, config: Any, clock: Any = None, chooser: Chooser | None = None,
                 allocate: ring.Allocator = ring.anonymous) -> None:  # fmt: skip
        self.config = config
        self.world = world = World(self._capacity())
        control = world.control[0]
        control.sanitizer, control.timing_only = int(config.sanitizer), int(not config.copy_payload)
        self.log: EventLog | PerfettoLog | None = None
        if config.trace:
            with _writing("trace", config.trace):
                self.log = open_log(world, config)
        self.capture: PacketCapture | None = None
        self.engine = Engine(world, self._drain if config.trace or config.pcap else None)
        model_pages = config.host.ram_pages if config.memory == "model" else 0
        self.frames = Frames(world, config.host.ram_pages, model_pages)
        control.graveyard = self.frames.graveyard
        control.scratch_fd, control.scratch_map = scratch()
        now, stamp = (memoryview(world.control.view(np.ndarray)[name]) for name in ("now", "stamp"))
        self.scheduler = Scheduler(lambda: now[0], chooser)
        log = self.scheduler.log = self.log.host if self.log else None
        self.host = Host(world, self.frames, self.scheduler, config.host, config.discipline, log, config.host.kswapd)
        self.host.mutants = of_layer("mm", config.mutants)
        if config.host.memory_max_pages is not None:
            self.host.memcg = Memcg(self.host, "program", config.host.memory_max_pages)
        self.host.console = lambda text: print(text, file=sys.stderr, flush=True)
        self.host.transparent_hugepage = config.host.transparent_hugepage
        self.host.hugetlb.set_nr_hugepages(HPAGE_PMD_NR, config.host.nr_hugepages_2m)
        self.host.hugetlb.set_nr_hugepages(HPAGE_PUD_NR, config.host.nr_hugepages_1g)
        self.host.discipline = planted(self.host.discipline, of_layer("sites", config.mutants))
        self.arena = Arena()
        self.process = Process(self.host, self.arena, self.host.new_address_space("program"), memory=config.memory)
        self.devices = self._devices()
        self.fabric = Fabric(world, config.fabric, config.impairments, config.seed)
        if config.pcap:
            with _writing("pcap", config.pcap):
                self.capture = self._capture(config.pcap.open("wb"))
        options = Options(config.notifier_subscriber, config.force_odp, config.mutants, self._stretch())
        self.driver = Driver(self.scheduler, self.devices, config.host.costs, lambda: stamp[0], options,
                             allocate)  # fmt: skip
        self.timeline = Timeline(self.engine, self.scheduler, self.driver.deliver, clock or VirtualClock())
        self.endpoint = (LoggedEndpoint if self.log else Endpoint)(self.timeline, self.driver, self.process)
        self.pumped = 0
        """Firings of the wall-clock pump: they make the history depend on real time."""
        self.injected: list[Injected] = []
        """What ``inject:`` asked for, and whether it fired."""
        self.watchdog = Watchdog(self)
        self.injected += inject(self)
        if config.evict_per_ms:
            self.scheduler.spawn(evictor(self, config.evict_per_ms), "evictor", daemon=True)

    def _capacity(self) -> Capacity:
        nic, nics = self.config.nic, self.config.nics
        return Capacity(
            nics=nics,
            qps=nic.max_qp + 2,
            cqs=nic.max_cq + 1,
            mkeys=nic.max_mr + nic.max_mw + 1,
            iotlb=nic.cache_lines,
            packets=Capacity().packets + nics * nic.backup_ring.entries,
            eqs=64,
            sq_entries=max(nics, 8) << 19,
            srqs=nic.max_srq + 1,
            ahs=nic.max_ah + 1,
            mcast=nic.max_total_mcast_qp_attach + 1,
            resources=max(nic.max_qp_rd_atom, Capacity().resources),
            gids=nic.gid_tbl_len,
            flows=nic.raw_packet.max_flows + 1 if nic.raw_packet else 1,
            rqts=nic.raw_packet.max_rwq_indirection_tables + 1 if nic.raw_packet else 1,
        )

    def _devices(self) -> list[Device]:
        config = self.config
        devices = [
            Device(self.world, i, config.nic, image, config.mutants, name)
            for i, (name, image) in enumerate(zip(config.device_names, load_firmware(config), strict=True))
        ]
        for device in devices:
            device.router = self.route  # type: ignore[method-assign]
        self.watches = [watch_hooks(device) for device in devices if config.check_firmware]
        return devices

    def _stretch(self) -> Callable[[int, int], int] | None:
        """Draws for the host's costs, if they lie apart."""
        if self.config.host.spread is None:
            return None
        row = self.config.nics + 1
        spread.configure(self.world.spread[row], self.config.host.spread)
        address = self.world.address
        return lambda stream, number: int(spread.host_factor(address, row, stream, number))

    def _capture(self, stream: BinaryIO) -> PacketCapture:
        """Every NIC's port is a link; what leads to it is another one where something can change a packet."""
        links = {}
        for number in self.fabric.captured():
            name, rate = self.devices[(number - 1) // 2].name, round(8000 / int(self.world.link[number].ps_per_byte))
            side = "" if number & 1 else " in"
            links[number] = name + side, f"port 1 of {name}{side and ', towards it'}, {rate} Gb/s"
        guids = [device.guid for device in self.devices]
        return PacketCapture(self.world, stream, guids, links, self.fabric.describe)

    def _drain(self, world: World) -> None:
        """Make room in the tables of trace and capture."""
        if self.log is not None:
            self.log.drain()
        if self.capture is not None:
            self.capture.drain()

    def flush(self) -> None:
        """Bring log and capture up to now, their files as well."""
        self._drain(self.world)
        if self.log is not None:
            self.log.flush()

    def route(self, dgid: bytes) -> int:
        """The fabric: NIC number (from 1) that owns a GID, 0 if nobody does."""
        for device in self.devices:
            if dgid in device.gids:
                return device.index + 1
        return 0

    @property
    def copy_method(self) -> str:
        """How the NIC reaches memory that the program owns: ``process_vm``, or ``memfd`` where that is forbidden."""
        return method()

    @property
    def pending(self) -> bool:
        """Something is left to run."""
        control = self.world.control[0]
        return bool(control.pending > control.stale) or self.scheduler.active

    @property
    def violations(self) -> int:
        """What the DMA sanitizer found so far."""
        return int(self.world.control[0].violations)

    def move_dma_buf(self, fd: int, gtt: bool | None = None, after_ns: int | None = None) -> None:
        """Make the GPU move the buffer of a dma-buf descriptor (``DmaBuf.fd``), for tests of what importers do.

        ``gtt``: to the host's memory, to VRAM, or None: to other pages of where it is. Returns when the NIC has let go
        of the old pages. With ``after_ns`` the move happens by itself so much later, in the middle of whatever runs,
        unless the buffer is gone by then or there is no memory.

        :raises OSError: EBADF, EINVAL: no dma-buf; ENOMEM: it stays where it is.
        """
        if after_ns is None:
            self.endpoint.process.dma_buf_move(fd, gtt)
        else:
            move = self.host.gpu.move_if_possible(self.host.gpu.get(fd), gtt)
            self.scheduler.spawn(move, "gpu-move", delay=after_ns)

    def close(self) -> None:
        """End the run: write what is left of log and capture, give addresses and descriptors back. Children that live
        find nobody any more."""
        if self.log is not None:
            self.log.close()
            self.log = None
        if self.capture is not None:
            self.capture.close()
            self.capture = None
        if os.getpid() == int(self.world.control[0].pid):
            self.endpoint.children.stop()
            self.arena.close()
            self.endpoint.dispatcher.close_files()
            self.host.gpu.close_files()
        self.world.close()
