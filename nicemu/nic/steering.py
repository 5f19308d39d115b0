"""Flow steering: which QPs a raw frame goes to (``ibv_create_flow(3)``).

Rules of type NORMAL are tried by priority, the lowest first, of equal ones the one made first. The first that matches
takes the frame, and with it rules that say exactly the same (mlx5 adds their QPs to one entry); after a DONT_TRAP rule
the search goes on. What no trapping rule took is for the ALL_DEFAULT rules, and a multicast frame for the MC_DEFAULT
ones. A SNIFFER sees every raw frame that arrives.
"""

from nicemu._jit import copy_bytes, jit, load64
from nicemu.abi import command as abi
from nicemu.abi.command import Command, FlowType, Status
from nicemu.nic.command_slot import param
from nicemu.nic.ethernet import MULTICAST_BIT
from nicemu.tables.raw_records import FLOW, FLOW_MATCH_WORD, MatchField
from nicemu.tables.records import INFINITY
from nicemu.tables.rows import flow, flow_base, headers, qp

CREATE_FLOW, DESTROY_FLOW = int(Command.CREATE_FLOW), int(Command.DESTROY_FLOW)
DESTROY_RQT = int(Command.DESTROY_RQT)
NORMAL, ALL_DEFAULT, MC_DEFAULT, SNIFFER = (int(kind) for kind in FlowType)
OK, BAD_RESOURCE = int(Status.OK), int(Status.BAD_RESOURCE)
FLOW_BYTES, MATCH_AT, MATCH_WORDS = FLOW.itemsize, 8 * FLOW_MATCH_WORD, 2 * len(MatchField)
ORDERS = 1 << 40
"""More than rules are ever made; a priority counts for so many."""


@jit
def matches(h, f):
    """The frame looks as the rule says: each field, under its mask."""
    different = (h.dst_mac ^ f.dst_mac) & f.dst_mac_mask
    different |= (h.src_mac ^ f.src_mac) & f.src_mac_mask
    different |= (h.ether_type ^ f.ether_type) & f.ether_type_mask
    different |= (h.vlan ^ f.vlan) & f.vlan_mask
    different |= (h.l3 ^ f.l3) & f.l3_mask
    different |= (h.src_high ^ f.src_high) & f.src_high_mask
    different |= (h.src_low ^ f.src_low) & f.src_low_mask
    different |= (h.dst_high ^ f.dst_high) & f.dst_high_mask
    different |= (h.dst_low ^ f.dst_low) & f.dst_low_mask
    different |= (h.proto ^ f.proto) & f.proto_mask
    different |= (h.tos ^ f.tos) & f.tos_mask
    different |= (h.ttl ^ f.ttl) & f.ttl_mask
    different |= (h.ip_flags ^ f.ip_flags) & f.ip_flags_mask
    different |= (h.flow_label ^ f.flow_label) & f.flow_label_mask
    different |= (h.l4 ^ f.l4) & f.l4_mask
    different |= (h.src_port ^ f.src_port) & f.src_port_mask
    different |= (h.dst_port ^ f.dst_port) & f.dst_port_mask
    return different == 0


@jit
def rank(f):
    """Place of a NORMAL rule in the order of trial."""
    return f.priority * ORDERS + f.order


@jit
def next_normal(world, n, after):
    """Row of the first NORMAL rule behind rank ``after`` that matches the frame read last, 0: none."""
    h = headers(world, 0)
    best, best_rank = 0, INFINITY
    for row in range(n.flow_base + 1, n.flow_end):
        f = flow(world, row)
        if f.valid and f.type == NORMAL and after < rank(f) < best_rank and matches(h, f):
            best, best_rank = row, rank(f)
    return best


@jit
def match_address(world, row):
    """Host address of a rule's values and masks."""
    return flow_base(world) + row * FLOW_BYTES + MATCH_AT


@jit
def same_rule(world, row, other):
    """Two NORMAL rules say the same."""
    f, g = flow(world, row), flow(world, other)
    if g.type != NORMAL or f.priority != g.priority or f.dont_trap != g.dont_trap:
        return False
    for i in range(MATCH_WORDS):
        if load64(match_address(world, row) + 8 * i) != load64(match_address(world, other) + 8 * i):
            return False
    return True


@jit
def is_default_for(f, h):
    """A default rule that wants the frame."""
    return f.type == ALL_DEFAULT or (f.type == MC_DEFAULT and h.dst_mac & MULTICAST_BIT != 0)


@jit
def joins(world, row, taker):
    """A rule gets the frame beside the NORMAL rules that were tried; ``taker``: the one that trapped it, 0: none."""
    f = flow(world, row)
    if f.type == SNIFFER:
        return True
    return same_rule(world, taker, row) if taker != 0 else is_default_for(f, headers(world, 0))


@jit
def choose(world, n):
    """Mark the rules that get the frame read last, in ``valid`` (2); gives how many they are."""
    taker, after = 0, -1
    while taker == 0:
        row = next_normal(world, n, after)
        if row == 0:
            break
        f = flow(world, row)
        f.valid = 2
        after = rank(f)
        taker = 0 if f.dont_trap else row
    count = 0
    for row in range(n.flow_base + 1, n.flow_end):
        f = flow(world, row)
        if f.valid == 1 and joins(world, row, taker):
            f.valid = 2
        count += 1 if f.valid == 2 else 0
    return count


@jit
def take_chosen(world, n):
    """QP row of one of the chosen rules, which is then chosen no more; 0: none is left."""
    for row in range(n.flow_base + 1, n.flow_end):
        f = flow(world, row)
        if f.valid == 2:
            f.valid = 1
            return f.qp
    return 0


@jit
def wants(world, n):
    """Some rule of this NIC wants the frame read last, sniffers apart."""
    h = headers(world, 0)
    for row in range(n.flow_base + 1, n.flow_end):
        f = flow(world, row)
        if f.valid and ((f.type == NORMAL and matches(h, f)) or is_default_for(f, h)):
            return True
    return False


@jit
def is_raw_command(opcode):
    """One of this file's or of rss."""
    return CREATE_FLOW <= opcode <= DESTROY_RQT


@jit
def flow_command(world, n, opcode, at):
    """CREATE_FLOW, DESTROY_FLOW."""
    number, qpn = param(at, 0), param(at, 1)
    if not 0 < number < n.flow_count:
        return BAD_RESOURCE
    row = n.flow_base + number
    f = flow(world, row)
    if opcode == DESTROY_FLOW:
        f.valid = 0
        return OK
    if f.valid or not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid == 0:
        return BAD_RESOURCE
    n.flow_end = max(n.flow_end, row + 1)
    n.flows_made += 1
    f.qp = n.qp_base + qpn
    f.type = param(at, 2)
    f.priority = param(at, 3)
    f.dont_trap = param(at, 4)
    f.order = n.flows_made
    copy_bytes(match_address(world, row), load64(at + abi.COMMAND_MAILBOX), 8 * MATCH_WORDS)
    f.valid = 1
    return OK
