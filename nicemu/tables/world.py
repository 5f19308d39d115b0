"""Allocation of the world: tables as lazily committed memory, the (base, count) vector, free lists."""

from __future__ import annotations

import ctypes
import errno
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from nicemu import _jit
from nicemu.tables import records
from nicemu.tables.raw_records import HASH_KEY_BYTES, RQT_ENTRIES
from nicemu.tables.records import (
    CAPTURED_BYTES,
    PAYLOAD_BYTES,
    RESOURCES_PER_QP,
    SEGMENTS_PER_PACKET,
    SRQ_WQE_BYTES,
    TAG_WQE_BYTES,
    Slot,
)
from nicemu.tables.wheel_records import COARSE_ROWS, PENDING_ROWS, WINDOW_NS

MAP_NORESERVE = 0x4000


class WorldError(Exception):
    """A trap: a bug of ours or a limit of the tables. The message names the table or rule, the row and the time."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Rows a NIC gets of each table, and rows all NICs and the host share. Memory is committed when touched."""

    nics: int = 1
    qps: int = 4096
    cqs: int = 4096
    mkeys: int = 65536
    eqs: int = 64
    iotlb: int = 1024
    events: int = 1 << 20
    sq_entries: int = 1 << 22
    packets: int = 1 << 16
    frames: int = 1 << 22
    nodes: int = 1 << 19
    violations: int = 1024
    trace: int = 1 << 17
    capture: int = 1 << 13
    units: int = 64
    hooks: int = 64
    srqs: int = 1024
    tags: int = 1 << 17
    ahs: int = 4096
    mcast: int = 256
    resources: int = RESOURCES_PER_QP
    gids: int = 256
    flows: int = 1024
    rqts: int = 256
    impairments: int = 1024
    taps: int = 1 << 16
    numbers: int = 1 << 20


def lazy_bytes(size: int) -> np.ndarray:
    """``size`` zero bytes of private memory, committed page by page when touched (uint8)."""
    area = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return np.frombuffer(area, np.uint8)


def lazy_zeros(count: int, dtype: type) -> np.ndarray:
    """``np.zeros(count, dtype)`` that commits what is touched, in every lab of a process: the allocator of ``np.zeros``
    clears memory that an earlier lab gave back."""
    size = count * np.dtype(dtype).itemsize
    return lazy_bytes(size)[:size].view(dtype)


class World:
    """Every table of a lab.

    ``address`` is what compiled code gets (int64). Tables are recarrays: ``world.qp[3].epsn``. Rows never move.
    """

    # recarrays; numpy's types do not know record fields
    control: Any
    event: Any
    nic: Any
    qp: Any
    sq_entry: Any
    cq: Any
    eq: Any
    msix: Any
    message: Any
    mkey: Any
    iotlb: Any
    fault: Any
    packet: Any
    segment: Any
    resource: Any
    vector: Any
    hook: Any
    frame: Any
    frame_stamp: Any
    violation: Any
    trace: Any
    capture: Any
    captured: Any
    node: Any
    srq: Any
    tag_list: Any
    tag: Any
    av: Any
    mcast: Any
    gid: Any
    fabric: Any
    link: Any
    impair: Any
    tap: Any
    number: Any
    fired: Any
    headers: Any
    flow: Any
    rqt: Any
    rqt_entry: Any
    hash_key: Any
    nic_state: Any
    qp_state: Any
    spread: Any
    bucket: Any
    coarse: Any
    pending: Any

    def __init__(self, capacity: Capacity | None = None) -> None:
        self.capacity = c = capacity or Capacity()
        n = c.nics
        counts = {
            Slot.CONTROL: 1, Slot.EVENT: c.events, Slot.NIC: n + 1, Slot.QP: n * c.qps + 1,
            Slot.SQ_ENTRY: c.sq_entries, Slot.CQ: n * c.cqs + 1, Slot.EQ: n * c.eqs + 1, Slot.MSIX: n * c.eqs + 1,
            Slot.MESSAGE: n * c.eqs + 1, Slot.MKEY: n * c.mkeys + 1, Slot.IOTLB: n * c.iotlb + 1,
            Slot.FAULT: (n * c.qps + 1) * records.FAULTS_PER_QP, Slot.PACKET: c.packets,
            Slot.SEGMENT: c.packets * SEGMENTS_PER_PACKET, Slot.RESOURCE: (n * c.qps + 1) * c.resources,
            Slot.VECTOR: c.units, Slot.HOOK: (n + 1) * c.hooks, Slot.NIC_STATE: n + 1, Slot.QP_STATE: n * c.qps + 1,
            Slot.FRAME: c.frames, Slot.FRAME_STAMP: c.frames,
            Slot.VIOLATION: c.violations, Slot.TRACE: c.trace, Slot.NODE: c.nodes,
            Slot.PAYLOAD: c.packets * PAYLOAD_BYTES, Slot.SRQ: n * c.srqs + 1, Slot.AV: n * (c.ahs + c.qps) + 1,
            Slot.MCAST: n * c.mcast + 1, Slot.GID: n * c.gids + 1, Slot.SRQ_WQE: (n * c.qps + 1) * SRQ_WQE_BYTES,
            Slot.FABRIC: 1, Slot.LINK: 2 * n + 1, Slot.IMPAIR: c.impairments, Slot.TAP: c.taps,
            Slot.NUMBER: c.numbers, Slot.FIRED: records.FIRED_ROWS,
            Slot.CAPTURE: c.capture, Slot.CAPTURED: c.capture * CAPTURED_BYTES,
            Slot.HEADERS: 1, Slot.FLOW: n * c.flows + 1, Slot.RQT: n * c.rqts + 1,
            Slot.RQT_ENTRY: (n * c.rqts + 1) * RQT_ENTRIES, Slot.HASH_KEY: (n * c.qps + 1) * HASH_KEY_BYTES,
            Slot.TAG_LIST: n * c.srqs + 1, Slot.TAG: n * c.tags + 1, Slot.TAG_WQE: (n * c.tags + 1) * TAG_WQE_BYTES,
            Slot.SPREAD: n + 2,
            Slot.BUCKET: WINDOW_NS, Slot.COARSE: COARSE_ROWS, Slot.PENDING: PENDING_ROWS,
        }  # fmt: skip
        self.tables: list[np.recarray] = []
        vector = np.zeros((len(Slot), 2), np.int64)
        for slot in Slot:
            dtype = self._dtype(slot)
            raw = lazy_bytes(counts[slot] * dtype.itemsize)
            table = raw.view(dtype)
            if dtype.names:
                table = table.view(np.recarray)
            self.tables.append(table)
            vector[slot] = table.ctypes.data, counts[slot]
            setattr(self, slot.name.lower(), table)
        self._vector = vector
        self.address: int = vector.ctypes.data
        _jit.WORLDS[self.address] = self.tables
        control = self.control[0]
        control.packet_next = control.event_next = control.node_next = 1
        control.packet_end = c.packets
        control.event_end = c.events
        row = self.control.view(np.ndarray)
        self._nodes = self.node["entries"]
        self._node_free, self._node_next = (memoryview(row[name]) for name in ("node_free", "node_next"))
        self.fabric[0].nics = n
        self.complaint: Exception | None = None
        """Why the trap word is set, if whoever set it can say more than that word."""
        self._said = False

    @staticmethod
    def _dtype(slot: Slot) -> np.dtype:
        if slot in (Slot.PAYLOAD, Slot.SRQ_WQE, Slot.CAPTURED, Slot.TAG_WQE, Slot.HASH_KEY):
            return np.dtype(np.uint8)
        if slot == Slot.HOOK:
            return records.VECTOR
        return getattr(records, slot.name)

    def close(self) -> None:
        """Forget the world. Memory goes when nothing refers to the tables any more."""
        _jit.WORLDS.pop(self.address, None)

    @property
    def now(self) -> int:
        """Virtual time, ns."""
        return int(self.control[0].now)

    @property
    def nodes(self) -> np.ndarray:
        """Radix nodes as an int64 array of shape (nodes, 512)."""
        return self._nodes

    def new_node(self) -> int:
        """A zeroed radix node."""
        node = self._node_free[0]
        if node:
            entries = self.nodes[node]
            self._node_free[0] = int(entries[0])
            entries[:] = 0
            return node
        node = self._node_next[0]
        if node >= self.capacity.nodes:
            raise WorldError(f"radix nodes: all {self.capacity.nodes} in use")
        self._node_next[0] = node + 1
        return node

    def free_node(self, node: int) -> None:
        """Give a radix node back."""
        self.nodes[node, 0] = self._node_free[0]
        self._node_free[0] = node

    def trap_error(self) -> Exception:
        """What the trap word says, as an exception. A complaint is said once; from then on the device is gone."""
        if self.complaint is not None:
            said, self._said = self._said, True
            return OSError(errno.ENODEV, str(self.complaint)) if said else self.complaint
        control = self.control[0]
        code, row = int(control.trap), int(control.trap_row)
        if 0 < code <= len(Slot):
            text = f"table {Slot(code - 1).name}: row {row} out of range"
        else:
            text = f"{records.Trap(code).name}: row {row}"
        return WorldError(f"trap at {int(control.now)} ns: {text}")


def address_of(array: np.ndarray) -> int:
    """Host address of an array's first byte."""
    return int(ctypes.c_int64(array.ctypes.data).value)
