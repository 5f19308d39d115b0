"""Counters in the text exposition format of Prometheus, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats: a family is ``# HELP``, ``# TYPE`` and its samples in one
piece; labels are quoted, with backslash, quote and line feed escaped; the last line ends with a line feed. No time
stamps: a collector stamps what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

RUN_TEXTS = {
    "nicemu_run_info": "The run that these counters belong to.",
    "nicemu_virtual_time_seconds": "Virtual time of the run.",
    "nicemu_device_events_total": "Device events that ran.",
    "nicemu_lock_reports_total": "Sleeps in atomic context, lock inversions and the like that were reported.",
    "nicemu_dma_violations_total": "What the DMA sanitizer found.",
}
TEXTS = {
    ("mr", "page_faults"): "Pages of the MR that were faulted in (rdma stat mr).",
    ("mr", "page_invalidations"): "Pages of the MR that were invalidated (rdma stat mr).",
    ("mr", "page_prefetch"): "Pages of the MR that were prefetched (rdma stat mr).",
    ("mr", "page_faults_handled"): "Page-fault events of the MR (rdma stat mr).",
    ("mr", "page_invalidations_handled"): "Invalidations of the MR that unmapped something (rdma stat mr).",
    ("nic", "page_faults"): "Page-fault events that the NIC raised, each for one page or many.",
    ("nic", "page_faults_merged"): "Faults of the NIC that joined an event which was open already.",
    ("nic", "out_of_sequence"): "Packets that came ahead of the one expected.",
    ("port", "sent_pkts"): "Packets sent.",
    ("port", "rcvd_pkts"): "Packets received.",
    ("port", "send_rnr_err"): "RNR NAKs sent.",
    ("port", "out_of_sequence"): "Packets that came ahead of the one expected.",
    ("port", "duplicate_request"): "Requests that came again.",
    ("port", "local_ack_timeout_err"): "Times that the ACK timer ran out.",
    ("port", "np_cnp_sent"): "Congestion notification packets sent.",
    ("port", "rp_cnp_handled"): "Congestion notification packets received.",
    ("port", "np_ecn_marked_roce_packets"): "Packets received with the congestion mark.",
    ("port", "rx_icrc_encapsulated"): "Packets with a wrong ICRC.",
}
"""By group and counter: groups have counters of one name that count different things."""
WHAT = {"mr": "MR", "nic": "NIC", "port": "port", "host": "host", "driver": "driver", "link": "link", "qp": "QP"}
GAUGES = {"frames_peak"}


class Sample(NamedTuple):
    """One value: name of its family, its labels in order."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: int | float


def exposition(snapshot: Mapping[str, Any]) -> str:
    """The whole text for a snapshot of ``nicemu.lab.counters``."""
    families: dict[str, list[Sample]] = {}
    for sample in _samples(snapshot):
        families.setdefault(sample.name, []).append(sample)
    return "".join(f"{line}\n" for name, samples in families.items() for line in _family(name, samples))


def _samples(snapshot: Mapping[str, Any]) -> Iterator[Sample]:
    run = tuple((name, str(snapshot[name])) for name in ("seed", "discipline", "firmware"))
    yield Sample("nicemu_run_info", run, 1)
    yield Sample("nicemu_virtual_time_seconds", (), snapshot["virtual_ns"] / 1e9)
    for name in ("device_events", "lock_reports", "dma_violations"):
        yield Sample(f"nicemu_{name}_total", (), snapshot[name])
    for kind in ("host", "driver"):
        yield from (_sample(kind, name, (), value) for name, value in snapshot[kind].items())
    for kind in ("mr", "nic", "port", "link", "qp"):
        for which, counters in snapshot[kind].items():
            labels = _labels(kind, which, counters)
            numbers = ((name, value) for name, value in counters.items() if isinstance(value, int))
            yield from (_sample(kind, name, labels, value) for name, value in numbers)


def _sample(kind: str, name: str, labels: tuple[tuple[str, str], ...], value: int) -> Sample:
    return Sample(f"nicemu_{kind}_{name}" + ("" if name in GAUGES else "_total"), labels, value)


def _labels(kind: str, which: str, counters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """``nicemu0/1`` is port 1, QP 1... of nicemu0."""
    if kind == "mr":
        return ("device", counters["device"]), ("mr", which)
    if kind in ("port", "qp"):
        device, _, number = which.rpartition("/")
        return ("device", device), (kind, number)
    return (("device" if kind == "nic" else kind, which),)


def _family(name: str, samples: list[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {_help(name)}"
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
    for sample in samples:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels)
        yield f"{name}{{{labels}}} {sample.value}" if labels else f"{name} {sample.value}"


def _help(name: str) -> str:
    """What a family counts; counters without a text are named after what they count."""
    if name in RUN_TEXTS:
        return RUN_TEXTS[name]
    kind, _, counter = name.removeprefix("nicemu_").removesuffix("_total").partition("_")
    return TEXTS.get((kind, counter)) or f"Counter {counter} of the {WHAT[kind]}."


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
