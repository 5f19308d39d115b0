# mypy: ignore-errors
"""Tables of the trace writer, reached like those of the world: ``qp(world, i)`` is row ``i`` of ``QP``; ``world`` is
the writer's own. They are the writer's only memory, however long the trace.
"""

from enum import IntEnum

from nicemu import _jit
from nicemu.tables.record import record

LANES = 64
"""WRs of a QP, host threads of a process, that are drawn as slices at a time."""
WORKS = 32
"""Page faults of a NIC that are being worked at."""


class Slot(IntEnum):
    """Positions in the table vector."""

    SCRIBE = 0
    SHAPE = 1
    FIELD = 2
    NAME = 3
    TEXT = 4
    QP = 5
    WR = 6
    FAULT = 7
    WORK = 8
    NIC = 9
    LINK = 10
    THREAD = 11
    COMMAND = 12
    COUNTER = 13
    LANE = 14
    SEEN = 15


SCRIBE = record(
    "trap", "trap_row",
    "rows",                  # address of the trace table
    "at", "end",             # where the next byte goes; no event begins from there on
    "packet", "event",       # where the packet in the making begins, and its track event
    "tracks",                # tracks so far: the next uuid
    "link_end",              # when the first of the slices open on links ends, 0: none
    "links", "nics", "qps",  # links, NICs, rows of QP for each NIC
    "faults",                # faults so far: the next flow
    "seen",                  # rows used in SEEN
    "call_lanes", "work_lanes",  # bits: lanes of the program and of the driver in use
)  # fmt: skip
SHAPE = record(
    "name", "category",      # iids: what is shown, what the event is called
    "name_field",            # row of FIELD whose value names it, 0: none
    "first", "fields",       # its rows of FIELD
    "action", "place",       # encode.Action; block of the NIC, or track of the host
    "span", "thread",        # host: which kind of span it begins or ends; word with the number of the thread
)  # fmt: skip
FIELD = record(
    "word", "part",          # word of the row; 0: all of it, 1: its low half, 2: its high half
    "name",                  # iid
    "text",                  # 1: the value is the iid of a string
    "names", "named",        # rows of NAME for its values from 0; how many
)  # fmt: skip
NAME = record("iid")
TEXT = record("address", "length", "worker")  # worker: as the name of a thread, one of the driver
QP = record(
    "track", "waits",        # uuids, 0: not seen yet
    "peer",                  # row of the QP at the other side, 0: not known
    "lanes",                 # bits: lanes in use
    "hint",                  # lane where a packet was found last
    "life",                  # RESETs so far
    "posted",                # WRs that the program has posted
    "announced",             # arrows have begun for those before this one, of the last doorbell or fetched
    "waiting",               # 0, or what the open slice of ``waits`` is: an Ev
)  # fmt: skip
WR = record("track", "open", "index", "first_psn", "last_psn", "flow")
FAULT = record("track", "open", "flow", "mkey", "page")
WORK = record("fault")
NIC = record("first", "faults", "reported", "wrs", "bytes", "in_flight", "misses", "reports")
LINK = record("track", "end")
THREAD = record("number", "lane", "driver", "spans", "fault")
COMMAND = record("track", "open")
COUNTER = record("track", "value", "due", "stale")
LANE = record("track")
SEEN = record("qp")
"""QPs that have tracks: rows of QP."""


def _rows(slot: Slot, dtype):
    return _jit.row_accessor(dtype, int(slot), SCRIBE.fields["trap"][1])


scribe, shape, names_field = _rows(Slot.SCRIBE, SCRIBE), _rows(Slot.SHAPE, SHAPE), _rows(Slot.FIELD, FIELD)
named, text, qp, wr = _rows(Slot.NAME, NAME), _rows(Slot.TEXT, TEXT), _rows(Slot.QP, QP), _rows(Slot.WR, WR)
fault, work, nic, link = _rows(Slot.FAULT, FAULT), _rows(Slot.WORK, WORK), _rows(Slot.NIC, NIC), _rows(Slot.LINK, LINK)
thread, command = _rows(Slot.THREAD, THREAD), _rows(Slot.COMMAND, COMMAND)
counter, lane, seen = _rows(Slot.COUNTER, COUNTER), _rows(Slot.LANE, LANE), _rows(Slot.SEEN, SEEN)
DTYPES = {
    Slot.SCRIBE: SCRIBE, Slot.SHAPE: SHAPE, Slot.FIELD: FIELD, Slot.NAME: NAME, Slot.TEXT: TEXT, Slot.QP: QP,
    Slot.WR: WR, Slot.FAULT: FAULT, Slot.WORK: WORK, Slot.NIC: NIC, Slot.LINK: LINK, Slot.THREAD: THREAD,
    Slot.COMMAND: COMMAND, Slot.COUNTER: COUNTER, Slot.LANE: LANE, Slot.SEEN: SEEN,
}  # fmt: skip
