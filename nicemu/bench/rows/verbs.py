"""What the device does with requests: RC, UD and atomics by message size, MTU and whose memory it is."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.bench import limits
from nicemu.bench.flow import Kind, flow
from nicemu.bench.measure import Case, Limit
from nicemu.pyverbs import enums as e
from nicemu.workloads.bench import PAGE

OPERATIONS = {"WRITE": e.IBV_WR_RDMA_WRITE, "READ": e.IBV_WR_RDMA_READ, "SEND": e.IBV_WR_SEND}
ATOMICS = {"FETCH_ADD": e.IBV_WR_ATOMIC_FETCH_AND_ADD, "CMP_SWP": e.IBV_WR_ATOMIC_CMP_AND_SWP}
SIZES = {64: "64 B", 4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}
MTUS = (4096, 1024)
QPS = (64, 1000)
WHOLE = "the same with payload"
RATES = ("messages/s", "packets/s", "GB/s", "events/s", "x real time")
NOTE = "the device alone: chains of requests posted before, with one doorbell and one CQE each, polled after"
SHORT = ("RC WRITE 64 B, MTU 4096, arena", "RC WRITE 64 KiB, MTU 4096, arena", "RC WRITE 64 KiB, MTU 4096, program",
         "RC WRITE 1 MiB, MTU 4096, arena", "RC WRITE 1 MiB, MTU 4096, program", "RC READ 64 KiB, MTU 4096, arena",
         "RC SEND 4 KiB, MTU 4096, arena", "RC FETCH_ADD 8 B", "UD SEND 4 KiB")  # fmt: skip


def cases() -> Iterator[Case]:
    """RC, many QPs, UD, atomics."""
    for name, opcode in OPERATIONS.items():
        for size in SIZES:
            for mtu in MTUS:
                for owned in (False, True):
                    yield _rc(name, Kind(opcode, size, mtu, owned=owned))
    whole = Limit(WHOLE, "packets/s", flow(Kind()))
    yield Case("RC WRITE 64 KiB, no payload", "verbs", "packets/s", flow(Kind(), copy_payload=False),
               (limits.bare(65536, copies=False), whole), ("events/s", "x real time"),
               "copy_payload: false, MTU 4096; the bare loop does not copy either")  # fmt: skip
    for qps in QPS:
        yield _case(f"RC WRITE 64 B, {qps:,} QPs", Kind(size=64), (limits.bare(64, qps=qps),), qps)
    for size in (64, 4096):
        kind = Kind(e.IBV_WR_SEND, size, transport=e.IBV_QPT_UD)
        yield _case(f"UD SEND {SIZES[size]}", kind, (limits.bare(size),))
    for name, opcode in ATOMICS.items():
        yield _case(f"RC {name} 8 B", Kind(opcode, 8), (limits.bare(8),))


def _rc(name: str, kind: Kind) -> Case:
    owner = "program" if kind.owned else "arena"
    found = [limits.bare(kind.size, kind.mtu)]
    if kind.size >= PAGE:
        found.append(limits.memcpy(kind.size))
    if kind.size == 65536 and not kind.owned:
        found.append(limits.c_loop(kind.size, kind.mtu))
    return _case(f"RC {name} {SIZES[kind.size]}, MTU {kind.mtu}, {owner}", kind, tuple(found))


def _case(name: str, kind: Kind, against: tuple[Limit, ...], qps: int = 1) -> Case:
    unit, *also = (
        RATES if kind.size <= 64 or qps > 1 else ("packets/s", *(rate for rate in RATES if rate != "packets/s"))
    )
    return Case(name, "verbs", unit, flow(kind, qps), against, tuple(also), NOTE, short=name in SHORT or qps == 64)
