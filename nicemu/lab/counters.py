"""All counters of a lab as one plain value: what ``--stats`` and ``nicemu stats``, ``top`` and ``diff`` show.

Groups: ``mr`` (``rdma stat mr``), ``nic`` (blocks of the device), ``port`` (``hw_counters`` of Linux, under the names
of mlx5 or else rxe), ``host``, ``driver``, ``link``, ``qp``. Plain dicts of integers, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import QpState, QpType
from nicemu.fabric.cable import name_of
from nicemu.lab.sysfs import HW_COUNTERS
from nicemu.lab.violations import violation_lines

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

FORMAT = 1
"""Moves on when a reader of an old snapshot would go wrong."""
RXE_COUNTERS = {"sent_pkts": "packets_sent", "rcvd_pkts": "packets_received", "send_rnr_err": "rnr_naks_sent"}
"""Names of ``rxe_hw_counters.c`` for what mlx5 has no name for, and ours."""
VIOLATIONS_SHOWN = 5


def snapshot(lab: Lab) -> dict[str, Any]:
    """The counters as they are now. Reads tables, changes nothing."""
    return {
        "format": FORMAT,
        "virtual_ns": int(lab.world.now),
        "device_events": int(lab.world.control[0].ran),
        "seed": lab.config.seed,
        "discipline": lab.config.discipline,
        "firmware": ", ".join(dict.fromkeys(device.image.name for device in lab.devices)),
        "history": determined(lab),
        "mr": {str(number): {"device": counters.device} | dict(counters.items())
               for number, counters in sorted(lab.driver.mr_counters.copy().items())},
        "nic": {device.name: device.counters() for device in lab.devices},
        "port": {f"{device.name}/1": _port(device.counters()) for device in lab.devices},
        "qp": {f"{lab.devices[int(row.nic) - 1].name}/{int(row.number)}": _qp(row) for row in _qps(lab)},
        "host": dict(sorted(lab.host.counters.copy().items())) | {"frames_peak": lab.frames.peak},
        "driver": {name: getattr(lab.driver.counters, name) for name in lab.driver.counters.__slots__},
        "link": {name_of(number): lab.fabric.counters(number) for number in lab.fabric.captured()},
        "lock_reports": len(lab.host.reports),
        "dma_violations": lab.violations,
        "notes": [*lab.fabric.report(), *(f"inject     {entry}" for entry in lab.injected),
                  *(str(report) for report in lab.host.reports),
                  *(f"DMA VIOLATION at {line}" for line in violation_lines(lab, VIOLATIONS_SHOWN))],
    }  # fmt: skip


def _port(nic: dict[str, int]) -> dict[str, int]:
    return {theirs: nic[ours] for theirs, ours in (RXE_COUNTERS | HW_COUNTERS).items()}


def _qps(lab: Lab) -> Iterator[Any]:
    """Rows of the QPs that exist."""
    table = lab.world.qp
    return (table[int(i)] for i in (table.valid != 0).nonzero()[0] if i)


def _qp(row: Any) -> dict[str, int | str]:
    """What a QP does: work requests fetched and retired, receives taken, and what holds it."""
    return {
        "type": QpType(int(row.type)).name,
        "state": QpState(int(row.state)).name,
        "send_fetched": int(row.sq_fetched),
        "send_completed": int(row.sq_una),
        "receives_taken": int(row.rq_next),
        "waits_for": _waits_for(row),
    }


def _waits_for(row: Any) -> str:
    if row.sq_suspended or row.read_suspended:
        return "page fault"
    if row.rnr_until:
        return "RNR timer"
    return "acknowledgement" if row.sq_fetched != row.sq_una else ""


def determined(lab: Lab) -> str:
    """Whether the seed alone decides this run's history, and if not, what else did."""
    others = []
    if lab.pumped:
        others.append(f"{lab.pumped} waits in C were pumped by the wall clock")
    if len(lab.timeline.program_threads) > 1:
        others.append(f"{len(lab.timeline.program_threads)} program threads took turns as the system let them")
    if lab.process.mm.placed_by_system:
        areas = lab.process.mm.placed_by_system
        others.append(f"{areas} areas of the program's own memory lie where the system put them")
    return "not determined by the seed alone: " + "; ".join(others) if others else "determined by the seed alone"
