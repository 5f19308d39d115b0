"""What ``nicemu top`` shows: rates between two snapshots of a running lab.

Rates of packets and bytes are by *virtual* time: what the emulated hardware does. The speed of the emulation itself
(events a second of wall time, virtual time by wall time) stands in the headline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Snapshot = Mapping[str, Any]


class Table(NamedTuple):
    """Cells are text already; columns but the first are right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def headline(before: Snapshot, now: Snapshot) -> str:
    """One line: where virtual time stands and how fast the emulation is."""
    wall = now.get("wall_s", 0.0) - before.get("wall_s", 0.0)
    text = f"{now['virtual_ns'] / 1e6:.3f} ms of virtual time, {now['device_events']} device events"
    if wall <= 0:
        return text
    events = (now["device_events"] - before["device_events"]) / wall
    speed = (now["virtual_ns"] - before["virtual_ns"]) / 1e9 / wall
    return f"{text}; {events:,.0f} events/s, virtual time runs {speed:.3g} times as fast as the clock on the wall"


def tables(before: Snapshot, now: Snapshot) -> Iterator[Table]:
    """NICs, queue pairs and MRs, each with what changed since ``before``; of the latter the busiest first."""
    seconds = float(now["virtual_ns"] - before["virtual_ns"]) / 1e9
    yield Table("NIC", ("", "packets/s", "Gb/s", "faults", "RNR NAKs", "retransmits", "timeouts", "IOTLB misses"),
                [_nic(name, _grown(before, now, "nic", name), seconds) for name in now["nic"]])  # fmt: skip
    yield Table("QP", ("", "state", "sent", "outstanding", "received", "waits for"),
                [_qp(name, grown, now["qp"][name]) for name, grown in _busiest(before, now, "qp")])  # fmt: skip
    yield Table("MR", ("", "device", "pages faulted", "invalidated", "prefetched", "fault events"),
                [_mr(name, grown, now["mr"][name]) for name, grown in _busiest(before, now, "mr")])  # fmt: skip


def _grown(before: Snapshot, now: Snapshot, kind: str, name: str) -> dict[str, int]:
    """By how much each counter of one thing grew; all of it if it was not there before."""
    old = before[kind].get(name, {})
    return {key: value - old.get(key, 0) for key, value in now[kind][name].items() if isinstance(value, int)}


def _busiest(before: Snapshot, now: Snapshot, kind: str) -> list[tuple[str, dict[str, int]]]:
    found = [(name, _grown(before, now, kind, name)) for name in now[kind]]
    return sorted(found, key=lambda item: -sum(item[1].values()))


def _rate(count: int, seconds: float) -> str:
    if seconds <= 0:
        return "-"
    rate = count / seconds
    scale, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if rate >= s), (1.0, ""))
    return f"{rate / scale:.3g}{unit}"


def _nic(name: str, grown: dict[str, int], seconds: float) -> tuple[str, ...]:
    lookups = grown["iotlb_hits"] + grown["iotlb_misses"]
    misses = f"{grown['iotlb_misses'] / lookups:.1%}" if lookups else "-"
    gigabits = f"{grown['bytes_sent'] * 8 / seconds / 1e9:.2f}" if seconds > 0 else "-"
    events = (f"+{grown[key]}" for key in ("page_faults", "rnr_naks_sent", "retransmits", "timeouts"))
    return (name, _rate(grown["packets_sent"], seconds), gigabits, *events, misses)


def _qp(name: str, grown: dict[str, int], row: Mapping[str, Any]) -> tuple[str, ...]:
    outstanding = row["send_fetched"] - row["send_completed"]
    return (f"{name} {row['type']}", row["state"], f"+{grown['send_completed']}", str(outstanding),
            f"+{grown['receives_taken']}", row["waits_for"] or "-")  # fmt: skip


def _mr(name: str, grown: dict[str, int], row: Mapping[str, Any]) -> tuple[str, ...]:
    pages = (f"+{grown[key]}" for key in ("page_faults", "page_invalidations", "page_prefetch", "page_faults_handled"))
    return (name, row["device"], *pages)
