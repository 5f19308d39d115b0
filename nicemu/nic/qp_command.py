"""Commands on QPs, SRQs, address handles, multicast groups and GIDs: execution when the command is decoded."""

from nicemu._jit import copy_bytes, jit, load64, store64
from nicemu.abi import command as abi
from nicemu.abi.command import AvField, Command, QpFlag, RingOwner, Status
from nicemu.abi.rings import SEND_HEADER_BYTES
from nicemu.nic.command_slot import param
from nicemu.nic.datagram import load_vector
from nicemu.nic.ethernet import MAX_HEADERS
from nicemu.nic.program_ring import srq_posted
from nicemu.nic.qp_context import modify_qp, query_qp
from nicemu.nic.qp_state import reset
from nicemu.nic.qp_type import RAW_PACKET, RC, UD, XRC_TGT
from nicemu.nic.rss import key_address
from nicemu.nic.tag_list import TM, create_list
from nicemu.tables.raw_records import HASH_KEY_BYTES
from nicemu.tables.rows import av, cq, gid, mcast, qp, srq

CREATE_QP, MODIFY_QP, QUERY_QP, DESTROY_QP = (
    int(Command.CREATE_QP), int(Command.MODIFY_QP), int(Command.QUERY_QP), int(Command.DESTROY_QP))  # fmt: skip
CREATE_SRQ, MODIFY_SRQ, QUERY_SRQ = int(Command.CREATE_SRQ), int(Command.MODIFY_SRQ), int(Command.QUERY_SRQ)
DESTROY_SRQ, RESIZE_SRQ = int(Command.DESTROY_SRQ), int(Command.RESIZE_SRQ)
CREATE_AH, DESTROY_AH, SET_GID = int(Command.CREATE_AH), int(Command.DESTROY_AH), int(Command.SET_GID)
ATTACH_MCAST, DETACH_MCAST = int(Command.ATTACH_MCAST), int(Command.DETACH_MCAST)
OK, BAD_PARAM, BAD_RESOURCE = int(Status.OK), int(Status.BAD_PARAM), int(Status.BAD_RESOURCE)
PLACE_RINGS = int(Command.PLACE_RINGS)
OF_QP, OF_CQ, OF_SRQ = int(RingOwner.QP), int(RingOwner.CQ), int(RingOwner.SRQ)
NO_MEMORY, BAD_OPCODE = int(Status.NO_MEMORY), int(Status.BAD_OPCODE)
SIGNAL_ALL, RENDEZVOUS = int(QpFlag.SIGNAL_ALL), int(QpFlag.RENDEZVOUS)
RX_FLAGS = int(QpFlag.CVLAN_STRIPPING | QpFlag.SCATTER_FCS)
F_DEST_NIC, F_SGID, F_MULTICAST = int(AvField.DEST_NIC), int(AvField.SGID_INDEX), int(AvField.MULTICAST)


@jit
def create_raw(world, n, row, at):
    """What a raw packet QP has: frames as long as the port takes; of RSS an indirection table, and a key."""
    q = qp(world, row)
    q.mtu = n.mtu + MAX_HEADERS
    q.tso_header = max(q.sq_stride - SEND_HEADER_BYTES, 0)
    if q.rq_slots == 0 and q.sq_slots == 0 and 0 < q.rq_ring < n.rqt_count:
        q.rqt = n.rqt_base + q.rq_ring
        q.hash_fields = q.sq_ring
        copy_bytes(key_address(world, row), load64(at + abi.COMMAND_MAILBOX), HASH_KEY_BYTES)


@jit
def shared_queue(n, at):
    """Row of the SRQ that CREATE_QP names, 0: none. An RSS QP names its indirection table there."""
    if param(at, 1) == RAW_PACKET and param(at, 6) == 0:
        return 0
    number = param(at, 8) if param(at, 9) == 0 else 0
    return n.srq_base + number if 0 < number < n.srq_count else 0


@jit
def create_qp(world, n, at):
    """CREATE_QP: the QP starts in RESET. No receive slots: an SRQ's number instead; no send slots: an XRC domain."""
    qpn = param(at, 0)
    if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid:
        return BAD_RESOURCE
    row = n.qp_base + qpn
    q = qp(world, row)
    shared = shared_queue(n, at)
    matches_tags = srq(world, shared).type == TM
    if matches_tags and param(at, 1) != RC:
        return BAD_PARAM
    q.nic = n.number
    q.number = qpn
    q.type = param(at, 1)
    q.pd = param(at, 2)
    q.send_cq = n.cq_base + param(at, 3)
    q.recv_cq = n.cq_base + param(at, 4)
    q.sq_ring = param(at, 5)
    q.sq_slots = param(at, 6)
    q.sq_stride = param(at, 7)
    q.rq_ring = param(at, 8)
    q.rq_slots = param(at, 9)
    q.rq_stride = param(at, 10)
    q.doorbell_record = param(at, 11)
    q.all_signaled = param(at, 12) & SIGNAL_ALL
    q.rendezvous = 1 if param(at, 12) & RENDEZVOUS else 0
    q.rx_flags = param(at, 12) & RX_FLAGS
    q.sq_entry = param(at, 13)
    q.ring_mkey = q.record_mkey = 0
    q.av = n.av_base + n.av_count + qpn
    q.srq = shared
    q.xrcd = 0
    if matches_tags:
        q.recv_cq = srq(world, shared).cq
    if q.type == XRC_TGT:
        q.xrcd = q.sq_ring
    q.path_mtu = 0
    q.mtu = n.mtu if q.type == UD else 0
    q.rqt = q.hash_fields = 0
    if q.type == RAW_PACKET:
        create_raw(world, n, row, at)
    q.resource_base = row * n.resources
    reset(world, row)
    q.valid = 1
    return OK


@jit
def destroy_qp(world, n, row):
    """DESTROY_QP: it leaves its multicast groups."""
    q = qp(world, row)
    reset(world, row)
    q.valid = 0
    for i in range(n.mcast_base, n.mcast_end):
        m = mcast(world, i)
        if m.nic == n.number and m.qpn == q.number:
            m.nic = 0
    return OK


@jit
def qp_command(world, n, opcode, at):
    """CREATE_QP to DESTROY_QP."""
    if opcode == CREATE_QP:
        return create_qp(world, n, at)
    qpn = param(at, 0)
    if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid == 0:
        return BAD_RESOURCE
    mailbox = load64(at + abi.COMMAND_MAILBOX)
    if opcode == MODIFY_QP:
        return modify_qp(world, n.qp_base + qpn, param(at, 1), mailbox)
    if opcode == QUERY_QP:
        return query_qp(world, n.qp_base + qpn, mailbox)
    return destroy_qp(world, n, n.qp_base + qpn)


@jit
def landed(world, n, at):
    """When the bytes that a QP has accepted are in memory, ns: a QP that was moved to ERR writes nothing after that."""
    return qp(world, n.qp_base + param(at, 0)).commit_until


@jit
def create_srq(world, n, row, at):
    """CREATE_SRQ."""
    s = srq(world, row)
    if s.valid:
        return BAD_RESOURCE
    s.nic = n.number
    s.number = param(at, 0)
    s.pd = param(at, 1)
    s.ring = param(at, 2)
    s.slots = param(at, 3)
    s.stride = param(at, 4)
    s.doorbell_record = param(at, 5)
    s.type = param(at, 6)
    s.xrcd = param(at, 7)
    s.cq = n.cq_base + param(at, 8)
    s.ring_mkey = s.record_mkey = 0
    s.next = 0
    s.limit = 0
    s.error = 0
    if s.type == TM:
        create_list(world, row, load64(at + abi.COMMAND_MAILBOX))
    s.valid = 1
    return OK


@jit
def resize_srq(world, row, ring, slots):
    """RESIZE_SRQ: the WQEs that nobody took move to the new ring, at the same counters."""
    s = srq(world, row)
    if s.ring_mkey:
        return BAD_PARAM
    end = srq_posted(world, row)
    if end - s.next > slots or end - s.next > s.slots:
        return BAD_PARAM
    for i in range(s.next, end):
        copy_bytes(ring + (i & (slots - 1)) * s.stride, s.ring + (i & (s.slots - 1)) * s.stride, s.stride)
    s.ring = ring
    s.slots = slots
    return OK


@jit
def srq_command(world, n, opcode, at):
    """CREATE_SRQ to RESIZE_SRQ."""
    number = param(at, 0)
    if not 0 < number < n.srq_count:
        return BAD_RESOURCE
    row = n.srq_base + number
    if opcode == CREATE_SRQ:
        return create_srq(world, n, row, at)
    s = srq(world, row)
    if s.valid == 0:
        return BAD_RESOURCE
    if opcode == MODIFY_SRQ:
        s.limit = param(at, 1)
    elif opcode == QUERY_SRQ:
        store64(load64(at + abi.COMMAND_MAILBOX), s.limit)
    elif opcode == RESIZE_SRQ:
        return resize_srq(world, row, param(at, 1), param(at, 2))
    else:
        s.valid = 0
    return OK


@jit
def word(mailbox, field):
    """One word of a mailbox."""
    return load64(mailbox + 8 * field)


@jit
def ah_command(world, n, opcode, at):
    """CREATE_AH, DESTROY_AH."""
    number = param(at, 0)
    if not 0 < number < n.av_count:
        return BAD_RESOURCE
    a = av(world, n.av_base + number)
    if opcode == DESTROY_AH:
        a.valid = 0
        return OK
    mailbox = load64(at + abi.COMMAND_MAILBOX)
    if not 0 <= word(mailbox, F_SGID) < n.gid_count:
        return BAD_PARAM
    a.pd = param(at, 1)
    a.dest_nic = word(mailbox, F_DEST_NIC)
    a.multicast = word(mailbox, F_MULTICAST)
    load_vector(a, mailbox + 8 * F_SGID)
    return OK


@jit
def mcast_row(world, n, qpn, high, low):
    """Row of a member of a group, -1 if it is none."""
    for i in range(n.mcast_base, n.mcast_end):
        m = mcast(world, i)
        if m.nic == n.number and m.qpn == qpn and m.mgid_high == high and m.mgid_low == low:
            return i
    return -1


@jit
def mcast_command(world, n, opcode, at):
    """ATTACH_MCAST, twice is once; DETACH_MCAST."""
    qpn, high, low = param(at, 0), param(at, 1), param(at, 2)
    found = mcast_row(world, n, qpn, high, low)
    if opcode == DETACH_MCAST:
        if found < 0:
            return BAD_PARAM
        mcast(world, found).nic = 0
        return OK
    if found >= 0:
        return OK
    if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).type != UD:
        return BAD_RESOURCE
    for i in range(n.mcast_base, n.mcast_base + n.mcast_count):
        m = mcast(world, i)
        if m.nic == 0:
            m.qpn = qpn
            m.mgid_high = high
            m.mgid_low = low
            m.nic = n.number
            n.mcast_end = max(n.mcast_end, i + 1)
            return OK
    return NO_MEMORY


@jit
def place_rings(world, n, at):
    """PLACE_RINGS: the rings and the record of an object that nothing uses yet lie in memory of the program."""
    kind, number = param(at, 0), param(at, 1)
    ring, record = param(at, 2), param(at, 3)
    if not (0 <= ring < n.mkey_count and 0 <= record < n.mkey_count):
        return BAD_PARAM
    ring = n.mkey_base + ring if ring else 0
    record = n.mkey_base + record if record else 0
    if kind == OF_QP and 0 < number < n.qp_count:
        q = qp(world, n.qp_base + number)
        q.ring_mkey = ring
        q.record_mkey = record
    elif kind == OF_CQ and 0 < number < n.cq_count:
        c = cq(world, n.cq_base + number)
        c.ring_mkey = ring
        c.record_mkey = record
    elif kind == OF_SRQ and 0 < number < n.srq_count:
        s = srq(world, n.srq_base + number)
        s.ring_mkey = ring
        s.record_mkey = record
    else:
        return BAD_RESOURCE
    return OK


@jit
def set_gid(world, n, at):
    """SET_GID."""
    index = param(at, 0)
    if not 0 <= index < n.gid_count:
        return BAD_PARAM
    g = gid(world, n.gid_base + index)
    g.high = param(at, 1)
    g.low = param(at, 2)
    g.type = param(at, 3)
    return OK


@jit
def object_command(world, n, opcode, at):
    """All commands of this file; BAD_OPCODE for others."""
    if CREATE_QP <= opcode <= DESTROY_QP:
        return qp_command(world, n, opcode, at)
    if CREATE_SRQ <= opcode <= RESIZE_SRQ:
        return srq_command(world, n, opcode, at)
    if opcode == CREATE_AH or opcode == DESTROY_AH:
        return ah_command(world, n, opcode, at)
    if opcode == ATTACH_MCAST or opcode == DETACH_MCAST:
        return mcast_command(world, n, opcode, at)
    if opcode == PLACE_RINGS:
        return place_rings(world, n, at)
    return set_gid(world, n, at) if opcode == SET_GID else BAD_OPCODE
