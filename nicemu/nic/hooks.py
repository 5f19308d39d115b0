"""The hook vector: decisions a vendor puts into firmware.

One ABI, the same as the engine's units: ``int64 f(int64 world, int64 row, int64 arg)``, ``row`` being the index of the
object decided about. Images are Python files (``firmware/``); see :mod:`nicemu.nic.firmware`.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import call, jit
from nicemu.tables.rows import hook, nic


class Hook(IntEnum):
    """Hook slots: object, argument, answer."""

    RESPONDER_FAULT = 0
    """QP row, its min_rnr_timer -> RNR timer code 0..31 to NAK with, -1 to drop silently, or -2 to let the request wait
    for the page, and all behind it, as long as the backup ring has room for them."""
    FAULT_PAGES = 1
    """QP row, fault row -> pages to ask the driver for, from the missing one on (what the operation does not need is
    prefetched), 0: the whole operation."""
    ACK = 2
    """QP row, PSN of a packet without AckReq -> 1 to acknowledge it now."""
    ACK_TIMEOUT = 3
    """QP row, local ACK timeout in ns -> ns to wait."""
    RNR_WAIT = 4
    """QP row, RNR timer in ns -> ns to wait."""
    IOTLB_VICTIM = 5
    """NIC row, first IOTLB row of the set -> way to evict, or -1 for least recently used."""
    UNRELIABLE_FAULT = 6
    """QP row, payload bytes of a UD, UC or raw packet that hit a missing page -> 1 to keep it in the backup ring, 0 to
    drop it."""

    ASYNC_EVENT = 7
    """NIC row, AsyncEvent that happens to one of its objects -> 1 to report it, 0 to keep quiet."""
    SEND_ERROR = 8
    """QP row, WcStatus << 8 | WrOpcode of a send request that has failed -> WcStatus it completes with, plus ``TO_ERR``
    if an unreliable QP goes to ERR and not to SQE. WR_FLUSH_ERR: the QP goes to ERR without a wait for the requests
    before it. Of one that was not sent yet also 0: it completes as if it had been, or ``GO_ON``: nobody notices."""
    RECEIVE_ERROR = 9
    """QP row, AETH syndrome << 8 | WcStatus of the receive that a refused request had (WR_FLUSH_ERR: it is no fault of
    the receive's) -> the same, to use; with another status than WR_FLUSH_ERR there is no async event."""
    SHORT_RECEIVE = 10
    """UD or UC QP row, 1 if it has an SRQ -> 0 to drop a message that is too long for its receive, the WcStatus that
    the receive completes with, or ``TO_ERR`` to treat it as RC does."""
    ERROR_WAKES = 11
    """CQ row, WcStatus << 8 | WcOpcode of a failed completion that is not solicited -> 1 to raise the event of a CQ
    armed for solicited completions, 0 not to."""
    LATE_RECEIVE = 12
    """QP row in ERR, 0 -> 1 to flush a receive that is posted now, 0 to leave it until a send is posted."""
    CQ_OVERRUN = 13
    """CQ row, WcOpcode of a completion that finds it full -> 1: the CQ is dead and the QP goes to ERR, 0: the
    completion is lost; of a receive the QP goes to ERR."""
    RESPONSE_FAULT = 14
    """QP row, bytes of a response that hit a missing page of the requester's -> 1: it waits, and what comes behind it,
    0: all are dropped and asked for again."""

    REQUESTER_FAULT = 15
    """QP row, FaultType of a fault that holds its send queue or a READ -> ns after which the device tries again by
    itself, 0: not before the driver's resume."""
    FAULT_DETECT = 16
    """QP row, ns by the profile -> ns from seeing a missing page to the page-fault EQE."""
    RESUME = 17
    """QP row, ns by the profile -> ns from decoding a resume command to going on."""
    MISSING_PAGE = 18
    """QP row, 1: to be written, 0: to be read -> ``FAULT``, or ``REDIRECT``: the bytes go to or come from the redirect
    page, and the device finds out when they have moved."""
    IOTLB_FILL = 19
    """NIC row, mkey row -> 1 to keep a translation in the IOTLB, 0 to use it once."""
    INVALIDATION = 20
    """NIC row, pages of a ZAP_MTT -> ``SELECTIVE``: flush their IOTLB lines, ``FULL``: all lines, or ``LAZY``: none
    now."""
    RETRANSMIT = 21
    """QP row, reason << 24 | PSN (``BY_TIMEOUT``, ``BY_NAK``, ``BY_RNR``, ``BY_GAP``) -> ``GO_BACK``: send all from
    that PSN on again, or ``ONLY``: its packet, or the READ from there on, and go on where the queue was. An RNR NAK,
    ``ONLY``: the queue goes on at once, and that packet goes out alone when the wait is over."""
    PSN_AHEAD = 22
    """QP row, packets missing before a request -> ``NAK`` once for the gap, ``DROP`` silently, or ``KEEP`` it until the
    gap is closed (and NAK once)."""
    AFTER_RNR = 23
    """QP row, packets missing before a request that comes while an RNR NAK is out -> ``DROP``, ``NAK`` or ``KEEP``."""
    NEXT_TURN = 24
    """QP row, ns until the port takes another packet -> ns until this QP may send its next one."""
    INTERRUPT_MODERATION = 25
    """EQ row, ns by the profile (0: off) -> ns to hold a message back, 0: send it now."""
    CC_SENT = 26
    """QP row, payload bytes of a request or READ response that left -> sending rate in kbit/s, 0: as fast as the port,
    ``KEEP_RATE``: as before."""
    CC_ACK = 27
    """QP row, packets newly acknowledged -> rate, as CC_SENT."""
    CC_ECN = 28
    """QP row of a receiver of an ECN mark, 1 if ``cnp_interval_ns`` is over since its last CNP -> 1 to send a CNP."""
    CC_CNP = 29
    """QP row a CNP came for, 0 -> rate, as CC_SENT."""
    CC_TIMER = 30
    """QP row whose rate is limited, 0; every ``congestion_timer_ns`` -> rate, as CC_SENT."""


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


@jit
def ask(world, nic_number, slot, row, arg):
    """The NIC's firmware decides."""
    return call(hook(world, nic(world, nic_number).hook_base + slot).address, world, row, arg)
