"""What each hook is asked, in words and numbers: for docs/firmware.md, for the template, and for check mode.

``reads`` names fields of rows (:data:`FIELDS`) that a decision of the kind usually looks at. ``values`` are the ranges
an answer lies in.
"""

from __future__ import annotations

from typing import NamedTuple

from nicemu.abi.verbs import WcStatus
from nicemu.nic import hooks
from nicemu.nic.hooks import MAX_NS, Hook

MAX_KBPS = 1 << 40
"""No rate is higher, kbit/s."""
_STATUS = int(max(WcStatus))
_NS = ((0, MAX_NS),)
_YES = ((0, 1),)
_RATE = ((hooks.KEEP_RATE, MAX_KBPS),)


class Ask(NamedTuple):
    """One row of the table of hooks."""

    asked: str
    row: str
    arg: str
    answer: str
    values: tuple[tuple[int, int], ...]
    reads: str


ASKS: dict[Hook, Ask] = {
    Hook.RESPONDER_FAULT: Ask(
        "a request of RC or XRC hits a missing page", "qp", "min_rnr_timer, code 0..31",
        "RNR timer code 0..31 to NAK with; -1: drop silently; -2 (`STALL`): it waits for the page, and all behind it, "
        "as long as the backup ring has room, else it is dropped",
        ((-2, 31),), "qp.min_rnr_timer qp.epsn qp.type nic.backup_entries nic.backup_packets"),
    Hook.FAULT_PAGES: Ask(
        "a page fault was seen, before it is reported", "qp", "FAULT row",
        "pages to ask the driver for, from the missing one on; more than the operation needs are prefetched; 0: as "
        "many as the whole operation still needs",
        ((0, 1 << 20),), "fault.va fault.type fault.bytes_committed fault.op_length fault.mkey mkey.length"),
    Hook.ACK: Ask(
        "a packet that did not ask for an ACK is done", "qp", "PSN", "1: acknowledge it now; 0: wait for one that asks",
        _YES, "qp.epsn qp.msn qp.mtu"),
    Hook.ACK_TIMEOUT: Ask(
        "the ACK timer starts", "qp", "timeout of the QP, ns (4.096 us * 2^timeout)", "ns to wait",
        ((1, MAX_NS),), "qp.timeout qp.retries qp.retry_cnt qp.una_psn nic.ack_timeout_floor_ns"),
    Hook.RNR_WAIT: Ask(
        "an RNR NAK arrives", "qp", "its RNR timer, ns", "ns to wait before sending again",
        _NS, "qp.rnr_retries qp.rnr_retry qp.una_psn"),
    Hook.IOTLB_VICTIM: Ask(
        "a translation goes into a full IOTLB set", "nic", "first IOTLB row of the set",
        "way to evict, counted from 0 (modulo `iotlb_ways`); -1: the least recently used",
        ((-1, (1 << 31) - 1),), "nic.iotlb_ways nic.iotlb_clock iotlb.mkey iotlb.page iotlb.clock"),
    Hook.UNRELIABLE_FAULT: Ask(
        "a packet of UD or UC, or a raw frame, hits a missing page", "qp", "payload, bytes",
        "1: keep it in the backup ring, if that has room; 0: drop it",
        _YES, "qp.type nic.backup_entries nic.backup_bytes nic.backup_packets nic.backup_used"),
    Hook.ASYNC_EVENT: Ask(
        "an async event happens to an object of the NIC", "nic", "`AsyncEvent`", "1: report it; 0: keep quiet",
        _YES, ""),
    Hook.SEND_ERROR: Ask(
        "a send request fails", "qp", "`WcStatus << 8 | WrOpcode`",
        "the `WcStatus` it completes with, plus 256 (`TO_ERR`): an unreliable QP goes to ERR and not to SQE. "
        "WR_FLUSH_ERR: to ERR at once, and requests before it that are not acknowledged yet are flushed too. If "
        "nothing of it was sent, also 0: it completes as if it had been, or -1 (`GO_ON`): nobody notices",
        ((-1, _STATUS), (hooks.TO_ERR, hooks.TO_ERR + _STATUS)), "qp.type qp.max_rd_atomic qp.state"),
    Hook.RECEIVE_ERROR: Ask(
        "a refused request has a receive", "qp",
        "`AETH syndrome << 8 | WcStatus` by the specification; WR_FLUSH_ERR: the receive is not to blame",
        "the same, to use; another status than WR_FLUSH_ERR then stands for the async event",
        ((0, 255 << 8 | _STATUS),), "qp.type qp.srq"),
    Hook.SHORT_RECEIVE: Ask(
        "a message of UD or UC is longer than its receive", "qp", "1: the receive is of an SRQ",
        "0: drop it, the `WcStatus` the receive completes with, or 256 (`TO_ERR`): as for RC",
        ((0, _STATUS), (hooks.TO_ERR, hooks.TO_ERR)), "qp.type qp.recv_length"),
    Hook.ERROR_WAKES: Ask(
        "a CQ armed for solicited completions gets a failed one that is not solicited", "cq",
        "`WcStatus << 8 | WcOpcode`", "1: raise its event; 0: do not", _YES, "cq.armed"),
    Hook.LATE_RECEIVE: Ask(
        "a receive is posted to a QP in ERR", "qp", "0", "1: flush it now; 0: with the next send",
        _YES, "qp.type qp.srq"),
    Hook.CQ_OVERRUN: Ask(
        "a completion finds the CQ full", "cq", "`WcOpcode`",
        "1: the CQ is dead and the QP goes to ERR; 0: the completion is lost; the QP goes to ERR if it was a "
        "receive's",
        _YES, "cq.slots cq.produced"),
    Hook.RESPONSE_FAULT: Ask(
        "a READ or atomic response hits a missing page of the requester's", "qp", "payload, bytes",
        "1: it waits, and what comes behind it; 0: all are dropped and asked for again",
        _YES, "qp.una_psn qp.rd_atomic nic.backup_entries nic.backup_packets"),
    Hook.REQUESTER_FAULT: Ask(
        "a page fault stops a send queue or the data of a READ", "qp", "`FaultType` of the fault",
        "ns after which the device tries again by itself; 0: not before the driver's resume",
        _NS, "qp.una_psn qp.retries"),
    Hook.FAULT_DETECT: Ask(
        "a page fault was seen", "qp", "ns by the profile: `fault_detect_ns`, more for several pages, with its spread",
        "ns until the page-fault event", _NS, "nic.fault_detect_ns nic.page_faults"),
    Hook.RESUME: Ask(
        "a resume command was decoded", "qp", "ns by the profile: `resume_ns` with its spread",
        "ns until the queue goes on", _NS, "nic.resume_ns"),
    Hook.MISSING_PAGE: Ask(
        "a translation finds a page missing", "qp", "1: to be written; 0: to be read",
        "0 (`FAULT`): a page fault; 1 (`REDIRECT`): the bytes go to or come from the redirect page, and the device "
        "finds out when they have moved", _YES, "qp.type"),
    Hook.IOTLB_FILL: Ask(
        "a translation is not in the IOTLB", "nic", "MKEY row",
        "1: keep it there; 0: use it once", _YES, "nic.iotlb_sets nic.iotlb_ways mkey.length mkey.page_shift"),
    Hook.INVALIDATION: Ask(
        "a ZAP_MTT takes pages away", "nic", "pages",
        "0 (`SELECTIVE`): flush their IOTLB lines; 1 (`FULL`): all lines; 2 (`LAZY`): none now",
        ((0, 2),), "nic.iotlb_sets nic.iotlb_ways"),
    Hook.RETRANSMIT: Ask(
        "packets have to be sent again", "qp",
        "`reason << 24 | PSN`: 0 (`BY_TIMEOUT`), 1 (`BY_NAK`), 2 (`BY_RNR`), 3 (`BY_GAP`, a missing response)",
        "0 (`GO_BACK`): all from that PSN on; 1 (`ONLY`): its packet, or the READ from there on, and go on where the "
        "queue was; after an RNR NAK the queue goes on at once, and that packet goes out when the wait is over",
        _YES, "qp.una_psn qp.next_psn qp.sent_psn qp.retries"),
    Hook.PSN_AHEAD: Ask(
        "a request comes behind a gap", "qp", "packets missing before it",
        "0 (`NAK`): NAK once for the gap; 1 (`DROP`): drop it silently; 2 (`KEEP`): keep it until the gap is closed, "
        "and NAK once", ((0, 2),), "qp.epsn qp.nak_pending"),
    Hook.AFTER_RNR: Ask(
        "a request comes behind one that was answered RNR", "qp", "packets missing before it",
        "1 (`DROP`): drop it; 0 (`NAK`): NAK the gap; 2 (`KEEP`): keep it until the gap is closed",
        ((0, 2),), "qp.epsn qp.nak_pending"),
    Hook.NEXT_TURN: Ask(
        "a packet of a QP was handed to the port", "qp", "ns until the port takes another packet",
        "ns until this QP may send its next one", _NS, "qp.rate_kbps qp.cc_kbps qp.paced_until qp.mtu nic.port_free"),
    Hook.INTERRUPT_MODERATION: Ask(
        "an event is written and its message could go", "eq", "`interrupt_moderation.time_ns` of the profile, 0: off",
        "ns to hold the message back; 0: send it now", _NS, "eq.number eq.produced msix.asserted_at msix.coalesced"),
    Hook.CC_SENT: Ask(
        "a request packet or a READ response left", "qp", "payload, bytes",
        "sending rate, kbit/s; 0: as fast as the port; -1 (`KEEP_RATE`): as before", _RATE, "qp.cc_kbps qp.next_psn"),
    Hook.CC_ACK: Ask(
        "an ACK moves the window", "qp", "packets newly acknowledged", "sending rate, as for `cc_sent`",
        _RATE, "qp.cc_kbps qp.una_psn"),
    Hook.CC_ECN: Ask(
        "a packet with an ECN mark arrives", "qp", "1: `cnp_interval_ns` is over since the last CNP",
        "1: send a CNP; 0: do not", _YES, "qp.next_cnp nic.cnp_interval_ns"),
    Hook.CC_CNP: Ask(
        "a CNP arrives", "qp", "0", "sending rate, as for `cc_sent`", _RATE, "qp.cc_kbps nic.ps_per_byte"),
    Hook.CC_TIMER: Ask(
        "`congestion_timer_ns` went by at a limited rate", "qp", "0", "sending rate, as for `cc_sent`",
        _RATE, "qp.cc_kbps nic.congestion_timer_ns"),
}  # fmt: skip


FIELDS: dict[str, str] = {
    "control.now": "virtual time, ns",
    "nic.number": "the NIC, from 1",
    "nic.mtu": "path MTU of the port, bytes",
    "nic.ps_per_byte": "time a byte takes on the port, ps",
    "nic.port_free": "virtual time at which the port takes the next packet, ns",
    "nic.iotlb_sets": "sets of the IOTLB",
    "nic.iotlb_ways": "lines of a set",
    "nic.iotlb_clock": "translations asked for so far; ages lines",
    "nic.ack_timeout_floor_ns": "shortest ACK timeout, ns",
    "nic.fault_detect_ns": "by the profile, ns",
    "nic.resume_ns": "by the profile, ns",
    "nic.cnp_interval_ns": "shortest time between CNPs of a QP, ns",
    "nic.congestion_timer_ns": "time between `cc_timer`, ns",
    "nic.backup_entries": "packets that the backup ring holds",
    "nic.backup_bytes": "bytes that it holds",
    "nic.backup_packets": "packets in it",
    "nic.backup_used": "bytes in it",
    "nic.page_faults": "page faults raised, and the other counters of `--stats`",
    "qp.nic": "row of its NIC",
    "qp.number": "QP number",
    "qp.type": "`RC`, `UC`, `UD`, `XRC_INI`, `XRC_TGT`, `RAW_PACKET`",
    "qp.state": "QP state, `ibv_qp_state`",
    "qp.mtu": "path MTU, bytes",
    "qp.timeout": "ACK timeout code of ibv_modify_qp",
    "qp.retry_cnt": "timeouts and sequence NAKs that are allowed without progress",
    "qp.retries": "of those, still left",
    "qp.rnr_retry": "RNR NAKs in a row that are allowed, 7: no limit",
    "qp.rnr_retries": "of those, still left",
    "qp.min_rnr_timer": "RNR timer code of ibv_modify_qp",
    "qp.max_rd_atomic": "READs and atomics it may have outstanding",
    "qp.rd_atomic": "READs and atomics outstanding",
    "qp.next_psn": "first PSN of the next request",
    "qp.una_psn": "oldest PSN not acknowledged",
    "qp.sent_psn": "highest PSN ever sent, plus 1",
    "qp.epsn": "PSN that the responder expects",
    "qp.msn": "messages that the responder has done",
    "qp.nak_pending": "1: a NAK for the expected PSN is out, 2: an RNR NAK",
    "qp.srq": "SRQ row, 0: a receive queue of its own",
    "qp.recv_length": "bytes of the receive at hand",
    "qp.rate_kbps": "sending rate that the program asked for, kbit/s; 0: as fast as the port",
    "qp.cc_kbps": "sending rate by congestion control, kbit/s; 0: as fast as the port",
    "qp.paced_until": "virtual time until which pacing holds it, ns",
    "qp.next_cnp": "virtual time of the next CNP at the earliest, ns",
    "cq.nic": "row of its NIC",
    "cq.slots": "room for completions",
    "cq.produced": "completions ever written",
    "cq.armed": "1: for any completion, 2: for solicited ones",
    "eq.nic": "row of its NIC",
    "eq.number": "vector: 1 commands, 2 async events, 3 page faults, 4 and up completions",
    "eq.produced": "events ever written",
    "msix.asserted_at": "virtual time of the last message, ns (row of the EQ)",
    "msix.coalesced": "events since the last message, under moderation",
    "fault.va": "address at which the translation failed",
    "fault.type": "`FaultType`: 0 RDMA at the responder, 1 SEND, 2 receive, 3 READ at the requester",
    "fault.bytes_committed": "bytes of the operation that are done",
    "fault.op_length": "bytes of the operation",
    "fault.mkey": "MKEY row",
    "fault.time": "virtual time at which it was seen, ns",
    "mkey.base": "address of the first byte",
    "mkey.length": "bytes",
    "mkey.page_shift": "log2 of the bytes of a page",
    "iotlb.mkey": "MKEY row of a line, 0: the line is free",
    "iotlb.page": "page of that mkey",
    "iotlb.clock": "`iotlb_clock` of its last use",
}


def text_of_values(values: tuple[tuple[int, int], ...]) -> str:
    """``-1..23 or 256..279``; the largest powers of two as such."""
    ends = {MAX_NS: "2^50", MAX_KBPS: "2^40"}
    return " or ".join(f"{low}..{ends.get(high, high)}" if low != high else str(low) for low, high in values)
