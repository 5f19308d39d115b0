"""Draw the first work requests of a trace as a picture: docs/pictures/trace.svg.

nicemu run --trace run.pftrace examples/odp_pingpong.py 1
python tools/draw_trace.py run.pftrace docs/pictures/trace.svg
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from matplotlib import pyplot

from nicemu.observe.trace_reader import Event, read

REQUESTS = 2
SPANS = {"WQE": "WQE_DONE", "FAULT": "RESUME", "RNR_WAIT": "RNR_OVER", "fault_in": "fault_in_done",
         "mtt_update": "mtt_update_done"}  # fmt: skip
ROWS = ["work requests", "RNR wait", "page faults", "interrupt", "driver: work item", "mm: fault in",
        "driver: MTT update", "packets"]  # fmt: skip
COLOURS = ["tab:blue", "tab:olive", "tab:red", "tab:pink", "tab:orange", "tab:green", "tab:purple", "tab:gray"]
Bar = tuple[int, int, int, str]


def key(event: Event) -> tuple[object, ...]:
    """What a begin and its end have in common."""
    fields = event.fields
    kind = "WR" if event.name.startswith("WQE") else "fault" if event.name in ("FAULT", "RESUME") else ""
    return kind, fields.get("thread"), fields.get("qpn"), fields.get("index") if kind == "WR" else fields.get("type")


def label(event: Event) -> str:
    """What stands at a bar."""
    fields = event.fields
    if event.name == "WQE":
        return f"{fields['opcode']} {fields['bytes']} B"
    return f"MR {fields['mr']} page {fields['page']}" if event.name == "FAULT" else ""


def row_of(event: Event) -> int:
    """The row that a bar is in."""
    return {"WQE": 0, "RNR_WAIT": 1, "FAULT": 2, "fault_in": 5, "mtt_update": 6}[event.name]


def bars(events: list[Event]) -> Iterator[Bar]:
    """(row, begin ns, end ns, label) of what took time."""
    begun: dict[tuple[object, ...], Event] = {}
    workers: dict[object, int] = {}
    for event in events:
        if event.name in SPANS:
            begun[event.name, *key(event)] = event
        elif event.name == "thread_start" and "page-fault" in str(event.fields["name"]):
            workers[event.fields["thread"]] = event.time
        elif event.name == "thread_end" and event.fields["thread"] in workers:
            yield 4, workers.pop(event.fields["thread"]), event.time, ""
        elif event.name == "INTERRUPT":
            yield 3, event.time - int(event.fields["flight_ns"]), event.time, ""
        elif event.name == "LINK_OUT":
            yield 7, event.time, event.time + int(event.fields["wire_ns"]), ""
        for name, end in SPANS.items():
            first = begun.pop((name, *key(event)), None) if event.name == end else None
            if first is not None:
                yield row_of(first), first.time, event.time, label(first)


def first_requests(path: Path) -> list[Event]:
    """The events from the first post to the end of the last request that is drawn."""
    events = list(read(path))
    start = next(e.time for e in events if e.name == "doorbell" and e.fields["bank"] == "SEND")
    end = [e.time for e in events if e.name == "WQE_DONE"][REQUESTS - 1]
    return [e for e in events if start <= e.time <= end]


def draw(path: Path, picture: Path) -> None:
    """The picture."""
    events = first_requests(path)
    pyplot.switch_backend("svg")
    pyplot.rcParams["svg.hashsalt"] = "nicemu"  # the same picture each time
    figure, axes = pyplot.subplots(figsize=(9, 3.4), layout="constrained")
    for row, begin, end, text in bars(events):
        axes.barh(row, max(end - begin, 800) / 1000, left=begin / 1000, height=0.6, color=COLOURS[row])
        if text:
            axes.text(begin / 1000 + 2, row, text, va="center", fontsize=7)
    axes.set_yticks(range(len(ROWS)), ROWS, fontsize=8)
    axes.set_xlim(events[0].time / 1000 - 10, events[-1].time / 1000 + 10)
    axes.invert_yaxis()
    axes.set_xlabel("virtual time, us")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
