"""The capture: one row and a copy of the payload for each packet that a link carries, drained into a file by Python.

A packet that the link then loses is here too: it was on the sender's side.
"""

from nicemu._jit import cold, copy_bytes, jit
from nicemu.tables.packets import payload_address
from nicemu.tables.records import CAPTURED_BYTES
from nicemu.tables.rows import av, capture_row, captured_base, control, gid, nic, packet, qp

CAPTURE_ROWS = 1 << 13
MAX_CAPTURE = CAPTURE_ROWS // 2
"""The engine stops to drain here; what is left holds the packets of one event."""


@jit
def capture(world, link, p):
    """Packet ``p`` is on ``link`` now: keep it if captures are on."""
    if control(world, 0).capture != 0:
        keep(world, link, p)


@cold
def keep(world, link, p):
    """The same where they are. A full table traps."""
    c = control(world, 0)
    i = c.capture_count
    to, row = capture_row(world, i), packet(world, p)
    if i >= CAPTURE_ROWS:
        return
    c.capture_count = i + 1
    to.time = c.now
    to.link = link
    copy_fields(to, row)
    to.source_qpn = qp(world, row.qp).number
    to.payload = min(row.payload, CAPTURED_BYTES)
    copy_bytes(captured_base(world) + i * CAPTURED_BYTES, payload_address(world, p), to.payload)
    address(world, to, row)


@jit
def copy_fields(to, row):
    """What the packet says."""
    to.source_nic = row.source_nic
    to.dest_nic = row.dest_nic
    to.transport = row.transport
    to.opcode = row.opcode
    to.psn = row.psn
    to.pkey = row.pkey
    to.dest_qpn = row.dest_qpn
    to.ack_request = row.ack_request
    to.solicited = row.solicited
    to.syndrome = row.syndrome
    to.msn = row.msn
    to.va = row.va
    to.rkey = row.rkey
    to.length = row.length
    to.imm = row.imm
    to.compare_add = row.compare_add
    to.swap = row.swap
    to.result = row.result
    to.qkey = row.qkey
    to.srqn = row.srqn
    to.multicast = row.multicast
    to.ecn = row.ecn
    to.fault = row.fault
    to.corrupt = row.corrupt


@jit
def address(world, to, row):
    """How the sender's address vector says it is addressed; a vector may be gone when the file is written."""
    vector, n = av(world, row.av), nic(world, row.source_nic)
    to.addressed = 1 if row.av != 0 else 0
    source = gid(world, n.gid_base + min(max(vector.sgid_index, 0), n.gid_count - 1) if n.gid_count > 0 else 0)
    to.sgid_high = source.high
    to.sgid_low = source.low
    to.dgid_high = vector.dgid_high
    to.dgid_low = vector.dgid_low
    to.flow_label = vector.flow_label
    to.traffic_class = vector.traffic_class
    to.hop_limit = vector.hop_limit
