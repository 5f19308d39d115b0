"""Receive-side scaling: an RSS QP hashes a frame's fields and an indirection table says which work queue gets it
(mlx5: TIR and RQT; ``ibv_create_rwq_ind_table(3)``).

The input is what ``rx_hash_fields_mask`` asks for and the frame has, in the order source address, destination address,
source port, destination port (Microsoft). A frame that has none of it goes to entry 0.
"""

from nicemu._jit import jit, load64
from nicemu.abi import command as abi
from nicemu.abi.command import WORK_QUEUE, Command, Status
from nicemu.nic.command_slot import param
from nicemu.nic.ethernet import TCP
from nicemu.tables.raw_records import HASH_KEY_BYTES, RQT_ENTRIES
from nicemu.tables.rows import hash_key_base, headers, qp, rqt, rqt_entry
from nicemu.wire.toeplitz import toeplitz

SRC_IPV4, DST_IPV4, SRC_IPV6, DST_IPV6 = 1, 2, 4, 8
SRC_PORT_TCP, DST_PORT_TCP, SRC_PORT_UDP, DST_PORT_UDP = 16, 32, 64, 128
CREATE_RQT = int(Command.CREATE_RQT)
OK, BAD_PARAM, BAD_RESOURCE = int(Status.OK), int(Status.BAD_PARAM), int(Status.BAD_RESOURCE)


@jit
def key_address(world, q_row):
    """Host address of the Toeplitz key of an RSS QP."""
    return hash_key_base(world) + q_row * HASH_KEY_BYTES


@jit
def add_address(key, at, fields, wanted_4, wanted_6, h, high, low):
    """(bits, hash) of one address at bit ``at`` of the input; nothing if it is not asked for."""
    if h.l3 == 4 and fields & wanted_4:
        return 32, toeplitz(key, at, low, 32)
    if h.l3 == 6 and fields & wanted_6:
        return 128, toeplitz(key, at, high, 64) ^ toeplitz(key, at + 64, low, 64)
    return 0, 0


@jit
def hash_of(world, q_row):
    """Toeplitz hash of the frame that was read last, for an RSS QP."""
    q = qp(world, q_row)
    h = headers(world, 0)
    key = key_address(world, q_row)
    fields = q.hash_fields
    at, value = add_address(key, 0, fields, SRC_IPV4, SRC_IPV6, h, h.src_high, h.src_low)
    bits, part = add_address(key, at, fields, DST_IPV4, DST_IPV6, h, h.dst_high, h.dst_low)
    at += bits
    value ^= part
    if h.l4 == 0:
        return value
    if fields & (SRC_PORT_TCP if h.l4 == TCP else SRC_PORT_UDP):
        value ^= toeplitz(key, at, h.src_port, 16)
        at += 16
    if fields & (DST_PORT_TCP if h.l4 == TCP else DST_PORT_UDP):
        value ^= toeplitz(key, at, h.dst_port, 16)
    return value


@jit
def spread(world, q_row):
    """Row of the work queue for the frame that was read last; the QP's own row if it is none of RSS."""
    q = qp(world, q_row)
    if q.rqt == 0:
        return q_row
    table = rqt(world, q.rqt)
    return rqt_entry(world, q.rqt * RQT_ENTRIES + (hash_of(world, q_row) & (table.size - 1))).wq


@jit
def rqt_command(world, n, opcode, at):
    """CREATE_RQT, DESTROY_RQT."""
    number, size = param(at, 0), param(at, 1)
    if not 0 < number < n.rqt_count:
        return BAD_RESOURCE
    row = n.rqt_base + number
    table = rqt(world, row)
    if opcode != CREATE_RQT:
        table.valid = 0
        return OK
    if table.valid:
        return BAD_RESOURCE
    if not 0 < size <= RQT_ENTRIES or size & (size - 1):
        return BAD_PARAM
    mailbox = load64(at + abi.COMMAND_MAILBOX)
    for i in range(size):
        wqn = load64(mailbox + 8 * i)
        if not 0 < wqn < n.qp_count or qp(world, n.qp_base + wqn).type != WORK_QUEUE:
            return BAD_RESOURCE
        rqt_entry(world, row * RQT_ENTRIES + i).wq = n.qp_base + wqn
    table.size = size
    table.valid = 1
    return OK
