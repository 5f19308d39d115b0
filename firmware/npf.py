"""The NIC of the page-fault paper: requesters stop, responders answer RNR NAK for about as long as a fault takes.

Imitates: the Connect-IB prototype of Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS 2017.
Source: that paper. Four page faults of a QP outstanding, one of a class, repeated ones merged: the profile's
max_fault_per_qp, and the engine. A missing page at the responder is answered with an RNR NAK. A READ response that hits
a missing page is dropped, and asked for again when the fault is resolved. A resume is a fast path in hardware with slow
work of firmware behind it: the profile's resume_ns is both.
Inferred: the NAK's timer. A fault of one page takes 220 us, so one round of 0.24 ms (code 9) is enough for most, where
the QP's own min_rnr_timer may be many times too long or too short.

Goes with the profiles configs/nic/npf.yaml and configs/host/npf.yaml.
"""

FAULT_TIMER = 9


def responder_fault(world, row, arg):
    """RNR timer code of a page fault: 0.24 ms, whatever min_rnr_timer (``arg``) says for missing receives."""
    return FAULT_TIMER


def response_fault(world, row, arg):
    """READ response on a missing page: dropped, and the READ goes back to it after the resume."""
    return 0
