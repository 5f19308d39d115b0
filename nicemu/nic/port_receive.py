"""Ingress port: what is checked before anything looks for a QP.

A corrupt packet fails its ICRC and is dropped. A packet that a switch marked is answered with a CNP to its sender, at
most one per QP and ``cnp_interval_ns``, or as firmware says; a CNP goes to firmware and no further (RoCEv2
congestion management).
"""

from nicemu._jit import cold, jit
from nicemu.abi.verbs import QpState
from nicemu.fabric.link import downlink
from nicemu.nic import hooks
from nicemu.nic.congestion import set_rate
from nicemu.nic.hooks import ask
from nicemu.nic.port import transmit
from nicemu.nic.qp_type import UD
from nicemu.tables.packets import free_packet, new_packet
from nicemu.tables.rows import control, link, nic, packet, qp
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

ACCEPT, CONSUMED = 0, 1
CNP_OPERATION = 1
"""Low five bits of BTH opcode 0x81."""
RTR, SQE = int(QpState.RTR), int(QpState.SQE)
CNP, DROP = int(Ev.CNP), int(Ev.DROP)


@jit
def live_qp(world, nic_number, qpn):
    """Row of a QP that may receive, 0 if there is none."""
    n = nic(world, nic_number)
    if not 0 < qpn < n.qp_count:
        return 0
    q = qp(world, n.qp_base + qpn)
    return n.qp_base + qpn if RTR <= q.state <= SQE else 0


@cold
def send_cnp(world, q_row, p):
    """Tell the sender of marked packet ``p`` that the way to this QP is congested."""
    q = qp(world, q_row)
    row = packet(world, p)
    now = control(world, 0).now
    over = 1 if now >= q.next_cnp else 0
    if ask(world, q.nic, hooks.CC_ECN, q_row, over) == 0:
        return
    cnp = new_packet(world, q.nic)
    if cnp == 0:
        return
    n = nic(world, q.nic)
    q.next_cnp = now + n.cnp_interval_ns
    n.cnps_sent += 1
    answer = packet(world, cnp)
    answer.transport = bth.CNP
    answer.opcode = CNP_OPERATION
    answer.psn = 0
    answer.qp = q_row
    answer.incarnation = q.incarnation
    answer.source_qpn = q.number
    answer.dest_qpn = row.source_qpn
    answer.dest_nic = row.source_nic
    answer.av = 0 if q.type == UD else q.av
    answer.dgid_high = row.sgid_high
    answer.dgid_low = row.sgid_low
    answer.sgid_high = row.dgid_high
    answer.sgid_low = row.dgid_low
    trace(world, CNP, q.nic, 1, q.number, row.source_qpn, 0)
    transmit(world, cnp, now)


@cold
def marked(world, p):
    """A switch marked the packet: its sender hears of it, unless the packet was a CNP or for many."""
    row = packet(world, p)
    nic(world, row.dest_nic).ecn_marked_packets += 1
    q_row = live_qp(world, row.dest_nic, row.dest_qpn)
    if q_row != 0 and row.multicast == 0 and row.transport != bth.CNP:
        send_cnp(world, q_row, p)


@cold
def notified(world, nic_number, p):
    """A CNP arrived: firmware cuts the rate of the QP that it names, or not."""
    row = packet(world, p)
    q_row = live_qp(world, nic_number, row.dest_qpn)
    if q_row != 0:
        set_rate(world, q_row, ask(world, nic_number, hooks.CC_CNP, q_row, 0))
    nic(world, nic_number).cnps_received += 1
    trace(world, CNP, nic_number, 0, row.dest_qpn, row.source_qpn, 0)


@jit
def checked_arrival(world, p):
    """ACCEPT: the packet is for the transport; CONSUMED: it was dropped, or handled here, and is gone."""
    row = packet(world, p)
    n = nic(world, row.dest_nic)
    down = n.port_down != 0 or link(world, downlink(row.dest_nic)).up == 0
    if not down and row.corrupt == 0 and row.ecn == 0 and row.transport != bth.CNP:
        return ACCEPT
    if not down and row.corrupt == 0:
        if row.ecn != 0:
            marked(world, p)
        if row.transport != bth.CNP:
            return ACCEPT
        notified(world, row.dest_nic, p)
    elif down:
        n.port_down_drops += 1
    else:
        n.icrc_errors += 1
        trace(world, DROP, row.dest_nic, row.opcode, row.psn, row.dest_qpn, 0)
    n.packets_received += 1
    free_packet(world, p)
    return CONSUMED
