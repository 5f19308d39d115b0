"""Results made by hand."""

from nicemu.bench.measure import Against, Reading, Row
from nicemu.bench.results import Results


def readings(what: str, *rates: float, wall: float = 2.0, **others: float) -> list[Reading]:
    """A reading of one CPU second for each rate; other processes took as much again."""
    return [Reading(wall, 1.0, {what: rate} | others) for rate in rates]


def row(
    name: str = "RC WRITE 64 KiB, MTU 4096, arena", rates: tuple[float, ...] = (3e6, 1e6, 2e6), limit: float = 4e6
) -> Row:
    found = Row(
        name,
        "verbs",
        "packets/s",
        ("x real time",),
        "a note",
        readings("packets", *rates, messages=1e6, bytes=1e9, virtual_ns=1e9),
    )
    found.limits = [Against("bare event loop", "packets/s", readings("packets", *[limit] * len(rates)))]
    return found


def results(*rows: Row) -> Results:
    return Results({"CPU": "a fast one"}, rows=list(rows) or [row()])
