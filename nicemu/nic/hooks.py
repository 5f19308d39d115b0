"""The hook vector: decisions a vendor puts into firmware.

One ABI, the same as the engine's units: ``int64 f(int64 world, int64 row, int64 arg)``, ``row`` being the index of the
object decided about. Images are Python files (``firmware/``); see :mod:`nicemu.nic.firmware`.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import call, jit
from nicemu.tables.rows import hook, nic


class Hook(IntEnum):
    """Hook slots. When each is asked, of which row, with what argument and answer: :mod:`nicemu.nic.hook_table`."""

    RESPONDER_FAULT = 0
    FAULT_PAGES = 1
    ACK = 2
    ACK_TIMEOUT = 3
    RNR_WAIT = 4
    IOTLB_VICTIM = 5
    UNRELIABLE_FAULT = 6
    ASYNC_EVENT = 7
    SEND_ERROR = 8
    RECEIVE_ERROR = 9
    SHORT_RECEIVE = 10
    ERROR_WAKES = 11
    LATE_RECEIVE = 12
    CQ_OVERRUN = 13
    RESPONSE_FAULT = 14
    REQUESTER_FAULT = 15
    FAULT_DETECT = 16
    RESUME = 17
    MISSING_PAGE = 18
    IOTLB_FILL = 19
    INVALIDATION = 20
    RETRANSMIT = 21
    PSN_AHEAD = 22
    AFTER_RNR = 23
    NEXT_TURN = 24
    INTERRUPT_MODERATION = 25
    CC_SENT = 26
    CC_ACK = 27
    CC_ECN = 28
    CC_CNP = 29
    CC_TIMER = 30


# the same numbers as plain integers, for kernels
(RESPONDER_FAULT, FAULT_PAGES, ACK, ACK_TIMEOUT, RNR_WAIT, IOTLB_VICTIM, UNRELIABLE_FAULT, ASYNC_EVENT, SEND_ERROR,
 RECEIVE_ERROR, SHORT_RECEIVE, ERROR_WAKES, LATE_RECEIVE, CQ_OVERRUN, RESPONSE_FAULT, REQUESTER_FAULT, FAULT_DETECT,
 RESUME, MISSING_PAGE, IOTLB_FILL, INVALIDATION, RETRANSMIT, PSN_AHEAD, AFTER_RNR, NEXT_TURN, INTERRUPT_MODERATION,
 CC_SENT, CC_ACK, CC_ECN, CC_CNP, CC_TIMER) = range(31)  # fmt: skip
STALL = -2
"""Answer of RESPONDER_FAULT."""
TO_ERR = 1 << 8
"""In answers of SEND_ERROR and SHORT_RECEIVE."""
GO_ON = -1
"""Answer of SEND_ERROR."""
FAULT, REDIRECT = 0, 1
"""Answers of MISSING_PAGE."""
SELECTIVE, FULL, LAZY = 0, 1, 2
"""Answers of INVALIDATION."""
BY_TIMEOUT, BY_NAK, BY_RNR, BY_GAP = 0, 1, 2, 3
"""Reasons of RETRANSMIT: the ACK timer, a sequence NAK, an RNR NAK, a missing response."""
GO_BACK, ONLY = 0, 1
"""Answers of RETRANSMIT."""
NAK, DROP, KEEP = 0, 1, 2
"""Answers of PSN_AHEAD and AFTER_RNR."""
KEEP_RATE = -1
"""Answer of the CC hooks."""

MAX_NS = 1 << 50
"""The longest time that a hook can answer, ns: 13 days."""


@jit
def ask(world, nic_number, slot, row, arg):
    """The NIC's firmware decides."""
    return call(hook(world, nic(world, nic_number).hook_base + slot).address, world, row, arg)


@jit
def ask_ns(world, nic_number, slot, row, arg):
    """The NIC's firmware says how long, in ns: whatever it answers, time goes forward and does not overflow."""
    return min(max(ask(world, nic_number, slot, row, arg), 0), MAX_NS)
