"""What two READs meet when the page of the first is missing at the responder: packet damming.

Imitates: ConnectX-4, and with another floor ConnectX-5 and 6, as Fukuoka, Sato and Taura observed them from outside in
"Pitfalls of InfiniBand with On-Demand Paging" (ISPASS'21). The profiles `connectx4` and `connectx5` have the floors of
the ACK timer, 500 ms and 30 ms; without one of them only the QP's own timeout dams.

Source: the abstract names packet damming and packet flood and says that they cost 3 to 4 orders of magnitude more than
a page fault. All numbers here and in the profiles are recalled, not read in the paper: a wait of 3.5 times the RNR
timer, a READ that faulted at its requester asked for again each 0.5 ms, the floors.

Inferred: how it comes about. After an RNR NAK the responder drops what follows in silence; the requester holds back
only the request that was NAKed and sends only that one again. So a second request that left meanwhile is lost, nobody
says so, and the ACK timer has to find out. A third one would: its PSN is ahead, and that is NAKed. Of packet flood only
the repeated READs are modelled, not that the device forgets which of many QPs may go on.
"""

from nicemu.firmware import BY_RNR, DROP, GO_BACK, ONLY

REQUESTER_READ = 3
"""FaultType of a READ whose data found no page."""
ASKED_AGAIN_NS = 500_000
RNR_WAIT_HALVES = 7
"""3.5 times the timer."""


def after_rnr(world, row, arg):
    """What follows a request that was answered RNR NAK: dropped, and nobody says so."""
    return DROP


def retransmit(world, row, arg):
    """After the RNR wait only the request that was NAKed; the rest was sent, as far as the requester knows."""
    return ONLY if arg >> 24 == BY_RNR else GO_BACK


def rnr_wait(world, row, arg):
    """Longer than the timer says."""
    return arg * RNR_WAIT_HALVES // 2


def requester_fault(world, row, arg):
    """A READ that faulted here is asked for again without waiting for the driver."""
    return ASKED_AGAIN_NS if arg == REQUESTER_READ else 0
