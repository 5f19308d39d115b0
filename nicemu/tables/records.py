"""Record dtypes: one per table. Fields are int64; comments carry the rule of use.

Row 0 of every table is the null object. A NIC owns a slice of each of its tables; numbers that the program or the
driver sees (qpn, cqn, mkey index, eqn) are indices into the NIC's slice.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from nicemu.tables.address_records import AV as AV
from nicemu.tables.address_records import GID as GID
from nicemu.tables.address_records import MCAST as MCAST
from nicemu.tables.fabric_records import FABRIC as FABRIC
from nicemu.tables.fabric_records import FIRED as FIRED
from nicemu.tables.fabric_records import FIRED_ROWS as FIRED_ROWS
from nicemu.tables.fabric_records import IMPAIR as IMPAIR
from nicemu.tables.fabric_records import LINK as LINK
from nicemu.tables.fabric_records import NUMBER as NUMBER
from nicemu.tables.fabric_records import TAP as TAP
from nicemu.tables.packet_records import PACKET as PACKET
from nicemu.tables.packet_records import SEGMENT as SEGMENT
from nicemu.tables.raw_records import FLOW as FLOW
from nicemu.tables.raw_records import HEADERS as HEADERS
from nicemu.tables.raw_records import RQT as RQT
from nicemu.tables.raw_records import RQT_ENTRY as RQT_ENTRY
from nicemu.tables.record import record
from nicemu.tables.spread import SPREAD as SPREAD
from nicemu.tables.tag_records import TAG as TAG
from nicemu.tables.tag_records import TAG_LIST as TAG_LIST
from nicemu.tables.wheel_records import BUCKET as BUCKET
from nicemu.tables.wheel_records import COARSE as COARSE
from nicemu.tables.wheel_records import EVENT as EVENT
from nicemu.tables.wheel_records import PENDING as PENDING

CONTROL = record(
    # each event's
    "trap", "trap_row",      # our bug or a resource limit: code and row; the run stops (see Trap and row_accessor)
    "now", "window",         # virtual time, ns; the wheel's window: time of its first bucket in windows
    "pending", "stale",      # events in the wheel; those of them that are cancelled timers
    "front", "front_time",   # the event that comes first, out of the wheel already, 0: not known; when, -1: not known
    "event_free",            # first of the free EVENT rows, 0: none
    "ran",                   # events run so far
    "interrupts",            # MSI-X messages waiting in MESSAGE
    "cqe_hits",              # CQEs written into a watched CQ since the last stop
    "trace", "trace_count",  # 1: record events; rows used in TRACE since the last drain
    "capture_count",         # rows used in CAPTURE since the last drain
    "packet_free",           # head of the free packet list, 0: none
    "sanitizer",             # 1: check every DMA
    "epoch", "watched",      # counts entries of the program; in which the copy's handler was looked after
    "copy_code", "probe_code", "watch_code",  # code of ``_jit.guard``; 0: copies go through the kernel
    "timing_only",           # 1: data of RDMA WRITE and READ is not copied
    "lent_chain",            # the first packet that borrowed payload since all was kept (``nic.lent``)
    # others
    "pid", "scratch_fd",     # for copies through the kernel; scratch_fd > 0: this memfd instead of process_vm_*
    "scratch_map",           # address of the memfd's first page
    "packet_next", "packet_end",  # first packet row never used; rows there are
    "event_next", "event_end",  # the same for events
    "node_free", "node_next",  # the same for radix nodes
    "stamp",                 # mm stamp: counts invalidations returned and write protections; ages translations
    "violations",            # rows used in VIOLATION
    "capture",               # 1: capture packets
    "fault_address",         # va at which the last translation failed
    "fault_mkey", "fault_write",  # its mkey row; 1: to be written
    "graveyard",             # address of the poisoned page: stale writes to it are lost
)  # fmt: skip

NIC = record(
    # each packet's
    "number", "hook_base",
    "asks",                  # bits of Hook: its image has one of its own; those of each packet are asked only then
    "defects",               # bits of ``nic.defects.Defect``
    "translation_delay",     # IOTLB misses of the translation in progress, ns
    "port_free", "dma_last", # when the egress port and the in-order DMA engine are free, ns
    "ps_per_byte", "pcie_latency_ns", "packet_ns",
    "ack_request_every",     # packets of a long message until one asks for an ACK
    "port_down",             # 1: what is sent or would arrive is lost
    "rx_waiting",            # requests in all responders' queues, those in the backup ring too
    "backup_packets", "backup_used",  # packets and bytes in the backup ring
    "qp_cache_ways",         # QP contexts on the device; 0: all
    "qp_base", "qp_count", "mkey_base", "mkey_count",
    "key_changes",           # how often a memory key lost something that it had granted
    "iotlb_base", "iotlb_sets", "iotlb_ways", "iotlb_clock",
    "credits", "ack_coalescing_ns", "wqe_fetch_ns",
    "ack_timeout_floor_ns",
    # others
    "cq_base", "cq_count", "eq_base", "eq_count",
    "l2_base", "l2_sets", "l2_ways",  # second level of the IOTLB; ways 0: there is none
    "qp_cache_base", "qp_cache_sets", "qp_cache_clock",
    "memory", "memory_bytes",  # device memory: host address and size
    "srq_base", "srq_count", "av_base", "av_count", "mcast_base", "mcast_count", "gid_base", "gid_count",
    "mcast_end",             # one behind the last row used
    "resources",             # responder resources of a QP
    "flow_base", "flow_count", "rqt_base", "rqt_count",
    "flow_end", "flows_made",  # one behind the last row used; rules ever made: each gets its order from it
    "mac",
    "command_ring",          # host address of the command slots
    "mtu", "doorbell_ns", "iotlb_miss_ns", "command_ns", "mtt_update_ns",
    "mtt_update_page_ns", "zap_ns", "zap_page_ns", "fault_detect_ns", "interrupt_ns", "resume_ns",
    "mtt_level_ns", "l2_hit_ns", "qp_cache_miss_ns", "fault_detect_page_ns",
    "retry_7_infinite", "max_fault_per_qp",
    "ack_timer_in_rnr",      # 1: the ACK timer goes on in an RNR wait
    "cq_spare",              # slots of a CQ that stay free
    "cnp_interval_ns",       # at most one CNP per QP in this time
    "congestion_timer_ns",   # a QP with a limited rate asks firmware so often
    "requests_waiting",      # requests ahead of a gap that are kept, of all QPs
    "zap_without_flush", "zap_without_drain",
    "function_masked",       # MSI-X control: no vector sends
    "moderation_count", "moderation_ns",  # of every vector; 0: off
    "max_rndv_hdr_size",     # longest rendezvous request that the device handles, bytes
    "backup_entries", "backup_bytes",  # packets and bytes that the backup ring holds
    "fatal",                 # 1: DEVICE_FATAL: QPs are dead, commands fail; 2: not reported yet, for want of room
    # counters
    "packets_sent", "packets_received", "bytes_sent", "packets_dropped", "iotlb_hits", "iotlb_misses",
    "iotlb_evictions", "page_faults", "page_faults_merged", "rnr_naks_sent", "sequence_naks_sent", "retransmits",
    "timeouts", "duplicates", "commands", "zaps", "zap_drains", "cqes", "interrupts", "resumes", "reads_rewound",
    "icrc_errors", "port_down_drops", "ecn_marked_packets", "cnps_sent", "cnps_received",
    "out_of_sequence", "bad_pkeys", "bad_qkeys", "malformed", "l2_iotlb_hits", "l2_iotlb_misses", "qp_cache_hits",
    "qp_cache_misses", "mw_binds", "mw_invalidations", "requests_kept",
    "tags_matched", "tags_unexpected", "rendezvous",
    "cq_overruns", "cq_events_held", "faults_held", "events_lost", "interrupts_coalesced", "interrupts_lost",
    "raw_unsteered", "raw_no_buffer",  # raw frames that no flow wanted; for which no receive WQE was posted
    "fault_drops", "backup_ring_packets", "backup_ring_delivered", "backup_ring_discards", "backup_ring_drops",
    "redirects", "fault_retries", "iotlb_bypasses", "iotlb_full_flushes", "lazy_invalidations",
)  # fmt: skip

QP = record(
    # every packet
    "state", "type", "dest_nic",
    "incarnation",           # moves on at RESET: events of an earlier life are ignored
    "nic:i32", "number:i32", "dest_qpn:i32", "mtu:i32",
    "av:i32",                # row of the QP's address vector
    "srq:i32",               # SRQ row, 0: a receive queue of its own
    "path_mtu:i8", "timeout:i8", "retry_cnt:i8", "rnr_retry:i8", "min_rnr_timer:i8", "all_signaled:i8",
    "valid:i8",              # between CREATE_QP and DESTROY_QP
    "rendezvous:i8",         # 1: the send queue is the device's own, for rendezvous
    # requester: counters of WQEs are absolute, PSNs 24 bits
    "sq_fetched",            # WQEs fetched and given PSNs
    "sq_next",               # WQE being sent
    "sq_una",                # oldest WQE not completed
    "sq_ring", "sq_slots", "sq_stride", "sq_entry",
    "sq_offset:i32",         # packets of the WQE being sent that were sent
    "next_psn:i32",          # first PSN of the next WQE fetched
    # its window, timers and retries
    "doorbell_record", "max_rd_atomic",
    "timer_deadline",        # 0: ACK timer off
    "timer_event",           # 0, or when the ACK_TIMER event in the wheel is due
    "una_psn:i32",           # oldest PSN not acknowledged
    "sent_psn:i32",          # highest PSN ever sent, plus 1
    "rd_atomic:i32",         # READs and atomics outstanding
    "ssn:i32", "lsn:i32",    # credits: number of the last message fetched that needs a receive; the last one allowed
    "sq_scheduled:i8",       # a REQUESTER event is in the wheel
    "sq_suspended:i8",       # a page fault holds the send queue
    "sq_error:i8",           # a WQE failed locally: nothing behind it is sent
    "sq_draining:i8",        # SQD: not drained yet
    "retries:i8", "rnr_retries:i8",
    "jumps:i8",              # 1: one packet is sent again, then it goes on at that jump_next, jump_offset
    "rnr_alone:i8",          # 1: the RNR wait holds this rnr_psn only
    "rewound:i8",            # bits: went back for a missing response, a sequence NAK; again only when una_psn moved
    "read_suspended:i8",     # a page fault of READ data: until it is resumed responses are dropped (1) or wait (2)
    # its pace, and what is out of the ordinary
    "send_cq", "rate_kbps", "paced_until",  # packet pacing; 0: as fast as the port
    "cc_kbps",               # the same by congestion control
    "rnr_until",             # 0, or the time an RNR wait ends
    "jump_next",
    "cc_timer:i32",          # 0, or a CONGESTION_TIMER is in the wheel: 1 + how often in a row it changed nothing
    "rnr_psn:i32",
    "cx_head:i32", "cx_tail:i32",  # responses that wait
    # responder: the message in progress
    "message_va", "message_offset", "message_length:u32", "message_key:u32",
    "keys_seen",             # ``key_changes`` of the NIC when that key was checked
    "recv_wqe",
    "commit_until",          # when the last COMMIT of this QP runs: a flush waits for it
    "epsn:i32", "msn:i32", "message_mkey:i32",
    "message_opcode:i8",     # 0, or operation (low five bits) of the FIRST packet of a message in progress, plus 1
    "recv_taken:i8",
    "nak_pending:i8",        # for the expected PSN a NAK (1) or RNR NAK (2) was sent: drop what is ahead of it
    "resp_error:i8",         # a request failed: nothing more is accepted
    # its queues
    "pd", "access", "recv_cq",
    "rq_next",               # next receive WQE
    "recv_wr_id", "recv_length",  # of the receive WQE taken: its bytes, -1 if it is bad
    "rx_head:i32", "rx_tail:i32",
    "rx_waiting:i32",        # requests in the responder's queue, behind a READ whose responses go out or a fault
    "rx_high:i32",           # highest PSN counted
    "rq_ring", "rq_slots", "rq_stride", "resource_base", "resource_head", "read_active",
    "next_cnp",              # earliest time of the next CNP, ns
    "cx_waiting:i32",        # how many responses wait
    "jump_offset:i32",
    # what is out of the ordinary there
    "max_dest_rd_atomic",
    "failed_wqe",            # receive WQE of the commit that failed
    "fault_code",            # what firmware answers faulted_psn with
    "rx_flags",              # raw packets and WQs: CVLAN_STRIPPING, SCATTER_FCS of QpFlag
    "ack_psn:i32",           # coalesced ACK: PSN to acknowledge
    "rx_non_posted:i32",     # READs, atomics, FLUSHes counted and waiting in the responder's queue
    "faulted_psn:i32",       # PSN that hit a missing page
    "ahead_head:i32", "ahead_count:i32",  # requests kept until the gap in front of them is closed, by PSN; how many
    "tag:i32",               # TAG row that the message in progress matched, 0: none
    "tagging:i8",            # the message in progress at a TM-SRQ: a ``tag_list.Tagging``
    "ack_event:i8",          # an ACK event is in the wheel
    "recv_suspended:i8",     # 1: the packet at the queue's head waits in the backup ring for a page; 2: a READ does
    "commit_failed:i8",      # a commit failed: what was accepted behind it is flushed
    "drop_message:i8",       # UC: the rest of a message in progress is discarded
    "comm_est:i8", "last_wqe:i8",  # COMM_EST, LAST_WQE_REACHED were raised in this life
    "read_counted:i8",       # the active READ counts too: it is no replay, which its requester may have done with
    # configuration, raw packets, tag matching
    "xrcd",                  # XRC target: its domain
    "hash_fields",           # RSS: RxHash
    "tso_header",            # bytes that a TSO WQE may bring as headers
    "sqd_notify",            # raise SQ_DRAINED when it is drained
    "rndv_produced",         # WQEs that the device wrote into its own send queue
    "qkey:u32",
    "ring_mkey:i32", "record_mkey:i32",  # 0, or the rings, the record lie in memory of the program: rows of its keys
    "rqt:i32",               # RSS: row of its indirection table; 0: it has a receive queue of its own
    "rndv_open:i32",         # rendezvous taken and not finished yet
    "pkey_index:u16", "port:u8",
)  # fmt: skip
"""Nine lines of 64 bytes, each for one direction: what is masked or counted by the device is narrow, what a command
brings as it is has 64 bits."""

SQ_ENTRY = record(
    "length", "opcode:u32", "flags:u32", "num_sge:u32", "first_psn:i32", "last_psn:i32",
    "received:i32",          # READ, atomic: response packets accepted
    "ssn:i32",               # message sequence number, for credits
    "status:i32",            # WcStatus of a local error, reported when its turn comes
    "done:i8",               # READ, atomic: all bytes are in memory
    "counted:i8",            # READ, atomic: counts in rd_atomic
    "asked:i8",              # its last packet went without credit and asked for an ACK
)  # fmt: skip

CQ = record(
    "nic", "number", "ring", "slots", "doorbell_record", "eqn", "produced", "armed", "watch", "overrun", "valid",
    "ignore_overrun",        # 1: a full ring is overwritten
    "ring_mkey", "record_mkey",  # as of a QP
    "moderation_count", "moderation_ns",  # an armed CQ's event: after so many CQEs, or so long after the first; 0: off
    "ripe",                  # CQEs that count towards the event since the CQ was armed
    "deadline", "timer_event",  # 0, or when moderation raises the event; a CQ_TIMER is in the wheel
    "event_held", "next_held",  # in its EQ's held list: 1 with an event due, 2 without (it was destroyed)
)  # fmt: skip

EQ = record(
    "nic", "number", "ring", "slots", "doorbell_record", "produced", "armed", "valid",
    "lost",                  # events that found it full and are gone
    "held", "held_head", "held_tail",  # events that found it full and wait: rows of CQ or FAULT, oldest first
)  # fmt: skip

MSIX = record(
    "masked", "pending", "count", "queued", "nic", "vector", "asserted_at",
    "coalesced",             # events since the last message, under moderation
    "deadline", "timer_event",  # 0, or when moderation sends the message; a VECTOR_TIMER is in the wheel
    "lost",                  # messages lost by injection
)  # fmt: skip

MESSAGE = record("nic", "vector")
"""MSI-X messages that the host has not taken yet."""

MKEY = record(
    "valid", "key", "pd", "base", "length", "access", "flags",
    "busy_until",            # when the last DMA translated through this mkey has moved its bytes
    "page_shift",            # log2 of the bytes that an MTT entry covers
    "first",                 # where the first byte lies in its page: address and key may differ in that
    "parent",                # window: row of its region, 0: not bound
    "root", "levels", "number", "pages_mapped",
    "windows",               # region: memory windows bound to it
    "parent_key", "parent_va",  # window: the region's key, and its address of the window's first byte
    "qp", "life",            # type 2 window: QP row it is bound to, and that QP's incarnation
    "memory",                # device memory: host address of the first byte
)  # fmt: skip

IOTLB = record("mkey", "page", "entry", "clock")
"""Lines of a NIC's IOTLB, of its second level, and of its QP-context cache (``mkey``: QP row), one behind the other."""

FAULT = record(
    "open", "type", "qp", "mkey", "va", "incarnation", "wqe", "bytes_committed", "op_length", "error", "time", "merged",
    "pages",                 # to ask the driver for; 0: all of the operation
    "number", "factor",      # of the NIC's faults; what its costs are times, in 1/65536
    "redirected",            # 1: firmware let bytes move to or from the redirect page
    "retrying",              # 1: a FAULT_RETRY is in the wheel
    "waiting",               # not reported yet: the QP has as many reported as it may
    "held", "next_held",     # in the page-fault EQ's held list: 1 with a report due, 2 without (its QP was reset)
)  # fmt: skip

SRQ = record(
    "nic", "number", "valid", "pd", "ring", "slots", "stride",
    "doorbell_record",       # producer counter of the library; consumer counter of the device
    "next",                  # next WQE to take
    "limit",                 # 0, or raise SRQ_LIMIT_REACHED when fewer are left
    "type", "xrcd", "cq",    # XRC: domain, row of the CQ of all its completions
    "error",                 # SRQ_ERR was raised: nothing more is taken
    "ring_mkey", "record_mkey",  # as of a QP
)  # fmt: skip

RESOURCE = record(
    "kind", "first_psn", "last_psn", "va", "mkey", "key", "length", "result", "next_psn", "opcode", "done",
)  # fmt: skip

VECTOR = record("address")

STATE_WORDS = 32
NIC_STATE = QP_STATE = record(*(f"word{i}" for i in range(STATE_WORDS)))
"""What a firmware image keeps of a NIC or of a QP; its own names for the words are ``nicemu.firmware``'s. Zero at
first; of a QP again at RESET."""

FRAME = record(
    "pointer",               # host address of the page's bytes while current, else of a graveyard page
    "va",                    # reverse map: page number in its anon_vma or file
    "generation:u32",        # moves on when the frame is freed
    "slot:i32",              # model frames: page of the pool
    "refcount:i32", "mapcount:i32",
    "address_space:i32",     # reverse map: number of its anon_vma or file
    "flags:u16",             # PG_* of ``mm.page``
    "kind:u8",               # FrameKind
    "lent:u8",               # packets whose payload is still here (``nic.lent``)
)  # fmt: skip
"""What every page has, 40 bytes. Beside it, committed where it is used: FRAME_STAMP, pins."""

FRAME_STAMP = record(
    "invalidated:u32",       # stamp at which the last invalidation of this page returned
    "protected:u32",         # stamp at which it was write-protected, 0: not
    "operation:u32",         # the mm operation that did so (name index)
)  # fmt: skip

VIOLATION = record(
    "kind", "time", "nic", "mkey", "page", "frame", "write", "translated_at", "made_stamp", "taken_stamp",
    "operation",
)  # fmt: skip

TRACE = record("time", "sequence", "kind", "nic", "a", "b", "c", "d")

CAPTURE = record(
    "time", "link", "source_nic", "dest_nic", "transport", "opcode", "psn", "pkey", "dest_qpn", "source_qpn",
    "ack_request", "solicited", "syndrome", "msn", "va", "rkey", "length", "imm", "compare_add", "swap", "result",
    "qkey", "srqn", "multicast", "ecn", "fault", "corrupt",
    "payload",               # bytes, in the same row of CAPTURED
    "addressed",             # 1: the rest comes from the sender's address vector; 0: it had none
    "sgid_high", "sgid_low", "dgid_high", "dgid_low", "flow_label", "traffic_class", "hop_limit",
)  # fmt: skip
"""Packets seen on links that nobody wrote to a file yet."""

NODE = np.dtype([("entries", np.int64, (512,))])
"""One radix node of 512 int64: page tables and MTTs alike."""


class Slot(IntEnum):
    """Position of each table in the world."""

    (
        CONTROL, EVENT, NIC, QP, SQ_ENTRY, CQ, EQ, MSIX, MESSAGE, MKEY, IOTLB, FAULT, PACKET, SEGMENT, RESOURCE,
        VECTOR, HOOK, NIC_STATE, FRAME, VIOLATION, TRACE, NODE, PAYLOAD, SRQ, AV, MCAST, GID, SRQ_WQE, FABRIC, LINK,
        IMPAIR, TAP, NUMBER, FIRED, CAPTURE, CAPTURED, TAG_LIST, TAG, TAG_WQE, HEADERS, FLOW, RQT, RQT_ENTRY,
        HASH_KEY, QP_STATE, SPREAD, FRAME_STAMP, BUCKET, COARSE,
        PENDING,
    ) = range(50)  # fmt: skip


class FrameKind(IntEnum):
    """What a frame's pointer is."""

    FREE, ARENA, PROGRAM, MODEL = range(4)


class Stop(IntEnum):
    """Why the engine stopped."""

    DEADLINE, INTERRUPT, CQE, IDLE, FULL, TRAP = range(6)


class Trap(IntEnum):
    """Trap codes above the table numbers: limits and broken invariants."""

    EVENTS_EXHAUSTED, PACKETS_EXHAUSTED, SEGMENTS_EXHAUSTED, NODES_EXHAUSTED, MESSAGES_FULL, BAD_UNIT = range(64, 70)


class ViolationKind(IntEnum):
    """What the DMA sanitizer found."""

    INVALIDATED, FREED, WRITE_PROTECTED, MISTRANSLATED = 1, 2, 3, 4


SEGMENTS_PER_PACKET, SEGMENTS_NEAR = 72, 2
RESOURCES_PER_QP = 16
FAULTS_PER_QP = 4
HEADROOM = 64
MAX_MTU = 4096
TAILROOM = 64
"""What a raw frame has beyond the largest MTU: Ethernet header, two VLAN tags, and an FCS if the program wants it."""
PAYLOAD_BYTES = HEADROOM + MAX_MTU + TAILROOM
CAPTURED_BYTES = MAX_MTU + TAILROOM
"""Payload of a captured packet: the largest MTU, or a raw frame."""
SRQ_WQE_BYTES = 1024
"""Room for a QP's copy of the SRQ WQE it took: 16 bytes and 32 SGEs."""
TAG_WQE_BYTES = 80
"""Room for a tag's buffer, in the form of a receive WQE: 16 bytes and 4 SGEs."""
INFINITY = 1 << 62
