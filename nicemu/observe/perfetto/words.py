"""Strings, blocks and counters that compiled code knows by number."""

from enum import IntEnum

from nicemu.abi.rings import FaultType

FIXED = (
    "QP ", "waits", "WR lane ", "fault ", " B", " KiB", " MiB", " GiB", "SEND", "page fault MR ", " page ",
    "command slot ", "call lane ", "worker lane ", *(kind.name for kind in FaultType),
)  # fmt: skip
WORDS = {text: iid for iid, text in enumerate(FIXED, 1)}
"""iids; what a run says gets those behind them."""


class Block(IntEnum):
    """Blocks of a NIC, in the order of their tracks; a track's uuid is the NIC's plus this."""

    PORT = 1
    REQUESTER = 2
    RESPONDER = 3
    COMPLETER = 4
    DMA = 5
    IOTLB = 6
    PAGE_FAULTS = 7
    TRANSLATION = 8
    CQ = 9
    EVENTS = 10
    COMMANDS = 11


BLOCKS = {
    Block.PORT: "port", Block.REQUESTER: "requester", Block.RESPONDER: "responder", Block.COMPLETER: "completer",
    Block.DMA: "DMA", Block.IOTLB: "IOTLB", Block.PAGE_FAULTS: "page faults", Block.TRANSLATION: "MTT",
    Block.CQ: "completion queues", Block.EVENTS: "event queues, interrupts", Block.COMMANDS: "commands",
}  # fmt: skip


class Gauge(IntEnum):
    """Counters of a NIC, in the order of their tracks, which come behind the blocks."""

    FAULTS = 0
    WRS = 1
    IN_FLIGHT = 2
    SENT = 3
    MISSES = 4


GAUGES = {
    Gauge.FAULTS: "page faults open", Gauge.WRS: "work requests outstanding",
    Gauge.IN_FLIGHT: "packets sent, not arrived", Gauge.SENT: "bytes sent", Gauge.MISSES: "IOTLB misses",
}  # fmt: skip
PROGRAM, DRIVER, MM, POSTS, MM_EVENTS, WAITS, FIRST_NIC = 1, 2, 3, 4, 5, 6, 16
"""uuids of tracks that every trace has."""
NIC_TRACKS = 32
"""uuids of a NIC's own track, its blocks and counters; its cables' come last."""
CABLE_OUT, CABLE_IN = 24, 25
MOST_SPANS = 7
"""Spans that a host thread can have open, one byte each."""


class Action(IntEnum):
    """How an event is drawn."""

    INSTANT = 0
    WQE = 1
    WQE_DONE = 2
    SEND = 3
    RECEIVE = 4
    LINK = 5
    CQE = 6
    EQE = 7
    INTERRUPT = 8
    COMMAND = 9
    COMMAND_DONE = 10
    FAULT = 11
    RESUME = 12
    MTT_UPDATE = 13
    RNR_WAIT = 14
    RNR_OVER = 15
    SQ_HELD = 16
    QP_STATE = 17
    QP_PATH = 18
    QP_INSTANT = 19
    IOTLB_MISS = 20
    LOST = 21
    POST = 32
    THREAD_START = 33
    THREAD_END = 34
    SPAN = 35
    SPAN_DONE = 36
    FAULT_WORK = 37
    THREAD_INSTANT = 38
    HOST_INSTANT = 39
