"""What the driver may do to a NIC, and nothing else: doorbells, boot registers, MSI-X masks.

Everything more is a command. The device never calls the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from nicemu import _jit
from nicemu.abi.verbs import AsyncEvent
from nicemu.fabric import cable
from nicemu.nic import bar, firmware, hooks, spread
from nicemu.nic.defects import Defect
from nicemu.nic.row_pool import RowPool
from nicemu.tables import units
from nicemu.tables.trace import Ev
from nicemu.tables.wheel import schedule
from nicemu.tables.world import World, address_of, lazy_bytes
from nicemu.wire.ip import mac_of_guid

COSTS = (
    "doorbell_ns", "wqe_fetch_ns", "pcie_latency_ns", "iotlb_miss_ns", "packet_ns", "command_ns", "mtt_update_ns",
    "mtt_update_page_ns", "zap_ns", "zap_page_ns", "fault_detect_ns", "interrupt_ns", "resume_ns", "mtt_level_ns",
    "fault_detect_page_ns",
)  # fmt: skip
GID_PREFIX = bytes.fromhex("fe80000000000000")


class Device:
    """NIC ``index`` (from 0) of a world: a slice of the tables."""

    def __init__(self, world: World, index: int, profile: Any, image: firmware.Image,
                 mutants: Iterable[str] = (), name: str = "") -> None:  # fmt: skip
        self.world, self.index, self.profile, self.image = world, index, profile, image
        self.name = name or f"nicemu{index}"
        self._schedule = schedule.load() if _jit.JIT else schedule
        self._now, self._cq_watch = (
            memoryview(table.view(np.ndarray)[name]) for table, name in ((world.control, "now"), (world.cq, "watch"))
        )
        self.write_doorbell: Callable[[int, int], None] = partial(
            bar.write_doorbell.load() if _jit.JIT else bar.write_doorbell, world.address, index + 1)  # fmt: skip
        """A write to the doorbell BAR: ``abi.rings.doorbell_offset(bank, number)``, and the value."""
        self._place()
        self._configure(frozenset(mutants))
        share = world.capacity.sq_entries // max(world.capacity.nics, 1)
        self._sq_entries = RowPool(1 + index * share, share)
        self._tags = RowPool(1 + index * world.capacity.tags, world.capacity.tags)
        self.guid = profile.first_guid + index
        self.mac = mac_of_guid(self.guid)
        self.row.mac = self.mac
        interface = self.guid.to_bytes(8, "big")
        mapped = bytes(10) + b"\xff\xff" + bytes((10, 0)) + interface[6:]  # 10.0.x.y: the GUID's last bytes
        types = profile.gid_types
        self.gids: list[bytes | None] = [gid for gid in (GID_PREFIX + interface, mapped) for _ in types]
        self.gids += [None] * (profile.gid_tbl_len - len(self.gids))
        self.gid_types = [*types, *types] + [0] * (len(self.gids) - 2 * len(types))
        self._fill_gid_table()

    def _place(self) -> None:
        c, i = self.world.capacity, self.index
        row = self.world.nic[i + 1]
        row.number = i + 1
        for name, count in (("qp", c.qps), ("cq", c.cqs), ("mkey", c.mkeys), ("eq", c.eqs)):
            row[f"{name}_base"], row[f"{name}_count"] = 1 + i * count, count
        row.srq_base, row.srq_count = 1 + i * c.srqs, c.srqs
        row.av_base, row.av_count = 1 + i * (c.ahs + c.qps), c.ahs
        row.mcast_base, row.mcast_count = 1 + i * c.mcast, c.mcast
        row.mcast_end, row.resources = row.mcast_base, c.resources
        row.gid_base, row.gid_count = 1 + i * c.gids, c.gids
        row.flow_base, row.flow_count = 1 + i * c.flows, c.flows
        row.rqt_base, row.rqt_count = 1 + i * c.rqts, c.rqts
        row.hook_base = (i + 1) * c.hooks
        self.row = row
        self._first_cq = int(row.cq_base)

    def _configure(self, mutants: frozenset[str]) -> None:
        row, profile = self.row, self.profile
        for name in COSTS:
            row[name] = getattr(profile.costs, name)
        spread.configure(self.world.spread[self.index + 1], profile.spread)
        row.ps_per_byte = cable.ps_per_byte(profile.link.rate_gbps)
        cable.plug_in(self.world, self.index + 1, int(row.ps_per_byte), profile.link.delay_ns)
        row.cnp_interval_ns, row.congestion_timer_ns = profile.cnp_interval_ns, profile.congestion_timer_ns
        self._place_caches()
        self.memory = lazy_bytes(profile.max_dm_size)
        """Device memory, as the driver sees it through a BAR."""
        row.memory, row.memory_bytes = address_of(self.memory), profile.max_dm_size
        row.retry_7_infinite = int(profile.retry_cnt_7_infinite)
        row.ack_timeout_floor_ns, row.ack_request_every = profile.ack_timeout_floor_ns, profile.ack_request_every
        row.defects = int(sum(Defect[name.upper()] for name in profile.defects))
        row.cq_spare, row.ack_timer_in_rnr = int(profile.cq_spare_slot), int(profile.ack_timer_in_rnr_wait)
        row.moderation_count = profile.interrupt_moderation.count
        row.moderation_ns = profile.interrupt_moderation.time_ns
        row.max_rndv_hdr_size = profile.tag_matching.max_rndv_hdr_size
        row.mtu, row.max_fault_per_qp = profile.active_mtu, profile.max_fault_per_qp
        row.credits, row.ack_coalescing_ns = int(profile.end_to_end_credits), profile.ack_coalescing_ns
        row.backup_entries, row.backup_bytes = profile.backup_ring.entries, profile.backup_ring.bytes
        row.zap_without_flush = int("zap_without_flush" in mutants)
        row.zap_without_drain = int("zap_without_drain" in mutants)
        row.asks = sum(1 << hook for hook in self.image.own)
        for hook in hooks.Hook:
            self.world.hook[int(row.hook_base) + hook].address = self.image.address(hook)

    def _place_caches(self) -> None:
        """Lines of the IOTLB, of its second level and of the QP-context cache, one behind the other."""
        row, profile, capacity = self.row, self.profile, self.world.capacity.iotlb
        at = start = 1 + self.index * capacity
        for name, cache in (("iotlb", profile.iotlb), ("l2", profile.l2_iotlb), ("qp_cache", profile.qp_cache)):
            if cache is not None:
                row[f"{name}_base"], row[f"{name}_sets"], row[f"{name}_ways"] = at, cache.sets, cache.ways
                at += cache.sets * cache.ways
        assert at - start <= capacity, f"{self.name}: the world has {capacity} cache lines a NIC, not {at - start}"
        if profile.l2_iotlb is not None:
            row.l2_hit_ns = profile.l2_iotlb.latency_ns
        if profile.qp_cache is not None:
            row.qp_cache_miss_ns = profile.qp_cache.miss_ns

    def _fill_gid_table(self) -> None:
        """What the network interface's addresses make of it at power-up; SET_GID changes it later."""
        for index, raw in enumerate(self.gids):
            if raw is not None:
                row = self.world.gid[int(self.row.gid_base) + index]
                row.high, row.low = (int.from_bytes(half, "big", signed=True) for half in (raw[:8], raw[8:]))
                row.type = self.gid_types[index]

    def set_command_ring(self, address: int) -> None:
        """Boot register: host address of the command slots."""
        self.row.command_ring = address

    def attach_eq(self, eqn: int, ring_address: int, slots: int, record_address: int) -> None:
        """Boot register: an event queue in zeroed host memory."""
        row = self.world.eq[int(self.row.eq_base) + eqn]
        row.nic, row.number, row.ring, row.slots = self.index + 1, eqn, ring_address, slots
        row.doorbell_record, row.produced, row.armed, row.valid = record_address, 0, 0, 1

    def mask_vector(self, vector: int, masked: bool) -> None:
        """MSI-X mask bit; clearing it sends a pending message."""
        at = int(self.row.eq_base) + vector
        self.world.msix[at].masked = int(masked)
        self._send_pending(at)

    def mask_function(self, masked: bool) -> None:
        """MSI-X function mask: no vector sends; clearing it sends what is pending and not masked by itself."""
        self.row.function_masked = int(masked)
        for vector in range(int(self.row.eq_count)):
            self._send_pending(int(self.row.eq_base) + vector)

    def _send_pending(self, at: int) -> None:
        row = self.world.msix[at]
        if row.masked or self.row.function_masked or not row.pending:
            return
        row.pending = 0
        if not row.queued:
            row.queued = 1
            when = self._now[0] + int(self.row.interrupt_ns)
            self._schedule(self.world.address, when, units.INTERRUPT, at, self.index + 1)

    def lose_interrupt(self, vector: int) -> None:
        """Fault injection: the message of the vector that has just reached the host is lost instead."""
        row = self.world.msix[int(self.row.eq_base) + vector]
        row.lost += 1
        row.count -= 1
        self.row.interrupts_lost += 1
        self.row.interrupts -= 1
        event = self._last_event(vector)
        if event is not None:
            event.b = 1

    def delay_interrupt(self, vector: int, ns: int) -> None:
        """Fault injection: that message comes ``ns`` later instead; until then it is in flight."""
        at = int(self.row.eq_base) + vector
        row = self.world.msix[at]
        row.queued = 1
        row.count -= 1
        self.row.interrupts -= 1
        if self._last_event(vector) is not None:
            self.world.control[0].trace_count -= 1
        self._schedule(self.world.address, self._now[0] + ns, units.INTERRUPT, at, self.index + 1)

    def _last_event(self, vector: int) -> Any:
        """The row of the event log that says that the vector's message has come, None if nobody keeps a log."""
        count = int(self.world.control[0].trace_count)
        row = self.world.trace[count - 1] if count else None
        return row if row is not None and (row.kind, row.nic, row.a) == (Ev.INTERRUPT, self.index + 1, vector) else None

    def write_iotlb(self, mkey: int, page: int, entry: int) -> None:
        """Fault injection: the line of a page of the mkey says ``entry``; if there is none it takes another's."""
        row, tag = self.row, int(self.row.mkey_base) + mkey
        first = int(row.iotlb_base) + ((page + tag * 7) & int(row.iotlb_sets) - 1) * int(row.iotlb_ways)
        lines = self.world.iotlb[first : first + int(row.iotlb_ways)]
        own = np.flatnonzero((lines.mkey == tag) & (lines.page == page))
        line = lines[int(own[0]) if len(own) else int(np.argmin(lines.clock))]
        line.mkey, line.page, line.entry, line.clock = tag, page, entry, row.iotlb_clock

    def raise_event(self, event: AsyncEvent) -> None:
        """Fault injection: PORT_ERR, PORT_ACTIVE or DEVICE_FATAL happens now."""
        self._schedule(self.world.address, self._now[0], units.DEVICE_EVENT, self.index + 1, int(event))

    @property
    def port_active(self) -> bool:
        """Port register: the link is up."""
        return not self.row.port_down

    def clock(self) -> int:
        """Timer register: the free-running clock that completions are stamped with, ns."""
        return self._now[0]

    def watch(self, number: int, on: bool) -> None:
        """Somebody polls this CQ: the engine stops at each CQE written to it."""
        self._cq_watch[self._first_cq + number] = on

    def allocate_sq_entries(self, slots: int) -> int:
        """First row of ``slots`` SQ_ENTRY rows (context memory of a send queue)."""
        return self._sq_entries.take(slots, f"{self.name}: no room for a send queue of {slots} entries")

    def free_sq_entries(self, first: int, slots: int) -> None:
        """Give rows back."""
        self._sq_entries.give(first, slots)

    def allocate_tags(self, count: int) -> int:
        """First row of ``count`` TAG rows (context memory of a TM-SRQ)."""
        return self._tags.take(count, f"{self.name}: no room for a list of {count} tags")

    def free_tags(self, first: int, count: int) -> None:
        """Give rows back."""
        self._tags.give(first, count)

    def route(self, dgid: bytes) -> int:
        """NIC number (from 1) that owns a GID, 0 if nobody does."""
        return self.router(dgid)

    def router(self, dgid: bytes) -> int:
        """The fabric's answer; the lab replaces it when there are several NICs."""
        return self.index + 1 if dgid in self.gids else 0

    def counters(self) -> dict[str, int]:
        """The NIC's counters by name."""
        names = self.row.dtype.names
        return {name: int(self.row[name]) for name in names[names.index("packets_sent") :]}
