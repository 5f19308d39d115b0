"""Impairments: what a link does to a packet on purpose. Seeded by counting, never by a shared generator.

A rule (IMPAIR) on a link is a TAP with a count of its own: packets of this link that passed the rule's filter. Whether
the rule hits packet number k is a function of (seed, rule, link, k), of k itself, or of the packet's PSN.

All rules of a link see a packet in the order of the configuration, until one loses it.
"""

from nicemu._jit import cold, jit
from nicemu.fabric import fired
from nicemu.fabric.draw import below, draw
from nicemu.fabric.size import ip_packet_bytes, wire_bytes
from nicemu.tables.fabric_records import ImpairKind, PacketField
from nicemu.tables.rows import control, fabric, impair, link, number, packet, tap

LOSS, REORDER, DUPLICATE, CORRUPT, DELAY, PARTITION, REWRITE = (int(kind) for kind in ImpairKind)
(
    TRANSPORT, OPERATION, PSN, DEST_QPN, PAYLOAD, LENGTH, VA, RKEY, SYNDROME, MSN, IMM, PKEY, QKEY, ACK_REQUEST,
    SOLICITED, SRQN,
) = (int(field) for field in PacketField)  # fmt: skip
WORD = 0xFFFFFFFF
IP_AND_UDP = 28
"""Bytes of an IP packet in front of the BTH (IPv4)."""
SECOND_DRAW = 1 << 20
"""Stream of the draws that say how much, apart from those that say whether."""


@jit
def listed(world, first, count, value):
    """``value`` is in an ascending list of NUMBER rows."""
    low, high = first, first + count
    while low < high:
        middle = (low + high) >> 1
        if number(world, middle).value < value:
            low = middle + 1
        else:
            high = middle
    return low < first + count and number(world, low).value == value


@jit
def concerns(world, rule, row):
    """The packet passes the rule's filter, and now is in its window."""
    now = control(world, 0).now
    if now < rule.from_ns or now >= rule.until_ns:
        return False
    if rule.transport >= 0 and row.transport != rule.transport:
        return False
    if rule.operations >> (row.opcode & 31) & 1 == 0:
        return False
    if rule.qpn >= 0 and row.dest_qpn != rule.qpn:
        return False
    return rule.psn_count == 0 or listed(world, rule.psns, rule.psn_count, row.psn)


@jit
def hits(world, i, way, count):
    """Rule ``i`` hits the ``count``-th packet that it saw on link ``way``."""
    rule = impair(world, i)
    if rule.limit >= 0 and rule.fired >= rule.limit:
        return False
    if rule.number_count > 0 and not listed(world, rule.numbers, rule.number_count, count):
        return False
    if rule.every > 0 and count % rule.every != 0:
        return False
    return rule.chance < 0 or draw(fabric(world, 0).seed, i, way, count) < rule.chance


@jit
def get_field(row, field):
    """The value of a field by its number."""
    if field == TRANSPORT:
        return row.transport
    if field == OPERATION:
        return row.opcode
    if field == PSN:
        return row.psn
    if field == DEST_QPN:
        return row.dest_qpn
    if field == PAYLOAD:
        return row.payload
    if field == LENGTH:
        return row.length
    if field == VA:
        return row.va
    if field == RKEY:
        return row.rkey
    if field == SYNDROME:
        return row.syndrome
    if field == MSN:
        return row.msn
    if field == IMM:
        return row.imm
    if field == PKEY:
        return row.pkey
    if field == QKEY:
        return row.qkey
    if field == ACK_REQUEST:
        return row.ack_request
    return row.solicited if field == SOLICITED else row.srqn


@jit
def set_field(row, field, value):
    """Store a field, cut to its width on the wire; a payload to what a packet holds."""
    if field == TRANSPORT:
        row.transport = value & 7
    elif field == OPERATION:
        row.opcode = value & 31
    elif field == PSN:
        row.psn = value & 0xFFFFFF
    elif field == DEST_QPN:
        row.dest_qpn = value & 0xFFFFFF
    elif field == PAYLOAD:
        row.payload = min(max(value, 0), 4096)
    elif field == LENGTH:
        row.length = value & WORD
    elif field == VA:
        row.va = value
    elif field == RKEY:
        row.rkey = value & WORD
    elif field == SYNDROME:
        row.syndrome = value & 0xFF
    elif field == MSN:
        row.msn = value & 0xFFFFFF
    elif field == IMM:
        row.imm = value & WORD
    elif field == PKEY:
        row.pkey = value & 0xFFFF
    elif field == QKEY:
        row.qkey = value & WORD
    elif field == ACK_REQUEST:
        row.ack_request = value & 1
    elif field == SOLICITED:
        row.solicited = value & 1
    else:
        row.srqn = value & 0xFFFFFF


@jit
def act(world, i, way, p, chance):
    """Do what rule ``i`` does; ``chance`` is a draw of its own. True: the packet is lost."""
    rule = impair(world, i)
    row = packet(world, p)
    wire = link(world, way)
    if rule.kind == LOSS or rule.kind == PARTITION:
        fired.record(world, i, way, p, 0)
        wire.losses += 1
        return True
    if rule.kind == CORRUPT:
        bits = (ip_packet_bytes(world, p) - IP_AND_UDP) * 8
        bit = rule.bit % bits if rule.bit >= 0 else below(chance, bits)
        row.corrupt = 1 + bit
        fired.record(world, i, way, p, bit)
    elif rule.kind == REWRITE:
        old = get_field(row, rule.field)
        fired.record(world, i, way, p, old)
        set_field(row, rule.field, old + rule.value if rule.add == 1 else rule.value)
        row.wire = wire_bytes(world, p)
    else:
        extra = rule.delay_ns
        if rule.jitter_ns > 0:
            extra += below(chance, rule.jitter_ns + 1)
        if rule.kind == REORDER:
            wire.late_ns += extra
        elif rule.kind == DELAY:
            wire.extra_ns += extra
        else:
            wire.copies += 1
            wire.copy_ns = extra
        fired.record(world, i, way, p, extra)
    return False


@cold
def suffer(world, way, p):
    """Apply a link's rules to a packet. True: lost. How late and how many copies stands in the link's row."""
    wire = link(world, way)
    wire.extra_ns = 0
    wire.late_ns = 0
    wire.copies = 0
    t = wire.first_tap
    while t != 0:
        here = tap(world, t)
        i = here.impairment
        if concerns(world, impair(world, i), packet(world, p)):
            here.seen += 1
            if hits(world, i, way, here.seen):
                if act(world, i, way, p, draw(fabric(world, 0).seed, i + SECOND_DRAW, way, here.seen)):
                    return True
        t = here.next
    return False
