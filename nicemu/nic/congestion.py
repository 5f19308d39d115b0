"""Congestion control and pacing: when a QP may send its next packet. Firmware sets the rate (``hooks.CC_*``).

The hooks of each packet are asked only if the NIC's image has one of its own (``nic.asks``): the default's answer is
known. A QP with a limited rate asks CC_TIMER again and again, until the limit is gone, or nothing is outstanding and
nothing has changed for a while: the next packet starts it again.
"""

from nicemu._jit import cold, jit
from nicemu.abi.verbs import QpState
from nicemu.nic import hooks
from nicemu.nic.hooks import KEEP_RATE, ask, ask_ns
from nicemu.nic.send_queue import kick, outstanding
from nicemu.tables import units
from nicemu.tables.rows import control, nic, qp
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push

RATE = int(Ev.RATE)
RTR, SQE = int(QpState.RTR), int(QpState.SQE)
NS_PER_MS = 1_000_000
MOST_QUIET = 64
"""Times in a row that CC_TIMER changes nothing of a QP with nothing outstanding."""


@jit
def has_own(world, nic_number, slot):
    """The NIC's image has a hook of its own here."""
    return nic(world, nic_number).asks >> slot & 1 != 0


@cold
def set_rate(world, q_row, rate):
    """What a CC hook has answered: kbit/s, 0: no limit."""
    if rate == KEEP_RATE:
        return
    q = qp(world, q_row)
    if q.cc_kbps != max(rate, 0):
        trace(world, RATE, q.nic, q.number, max(rate, 0), 0, 0)
    q.cc_kbps = max(rate, 0)
    if q.cc_kbps != 0:
        run_timer(world, q_row)
    elif q.rate_kbps == 0:
        q.paced_until = 0


@cold
def run_timer(world, q_row):
    """CC_TIMER is asked one period from now, if it is not waiting already."""
    q = qp(world, q_row)
    period = nic(world, q.nic).congestion_timer_ns
    if q.cc_timer == 0 and period > 0:
        q.cc_timer = 1
        push(world, control(world, 0).now + period, units.CONGESTION_TIMER, q_row, q.incarnation)


def congestion_timer(world, q_row, incarnation):
    """CONGESTION_TIMER: a period of a limited QP is over."""
    q = qp(world, q_row)
    if q.incarnation != incarnation:
        return 0
    quiet, before = q.cc_timer, q.cc_kbps
    if before == 0 or not RTR <= q.state <= SQE:
        q.cc_timer = 0
        return 0
    set_rate(world, q_row, ask(world, q.nic, hooks.CC_TIMER, q_row, 0))
    quiet = quiet + 1 if q.cc_kbps == before and not outstanding(q) else 1
    q.cc_timer = 0
    if q.cc_kbps != 0 and quiet <= MOST_QUIET:
        run_timer(world, q_row)
        q.cc_timer = quiet
    return 0


@jit
def rate_of(q):
    """The lower limit of the program's and congestion control's, kbit/s; 0: none."""
    if q.cc_kbps == 0 or q.rate_kbps == 0:
        return q.cc_kbps + q.rate_kbps
    return min(q.cc_kbps, q.rate_kbps)


@jit
def next_turn(world, q_row, payload):
    """A packet of the QP left: ns until it may come again. ``paced_until`` holds it back if something else wakes it."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    now = control(world, 0).now
    if has_own(world, q.nic, hooks.CC_SENT):
        set_rate(world, q_row, ask(world, q.nic, hooks.CC_SENT, q_row, payload))
    rate = rate_of(q)
    if rate != 0:
        q.paced_until = now + payload * 8 * NS_PER_MS // rate
        if q.cc_kbps != 0:
            run_timer(world, q_row)
    wait = max(n.packet_ns, n.port_free - n.pcie_latency_ns - now)
    if has_own(world, q.nic, hooks.NEXT_TURN):
        turn = ask_ns(world, q.nic, hooks.NEXT_TURN, q_row, wait)
        if turn > wait:
            q.paced_until = max(q.paced_until, now + turn)
        return max(turn, n.packet_ns)
    return wait


@jit
def paced(world, q_row):
    """The next packet has to wait; the requester comes again when it may go."""
    wait = qp(world, q_row).paced_until - control(world, 0).now
    if wait <= 0:
        return False
    kick(world, q_row, wait)
    return True
