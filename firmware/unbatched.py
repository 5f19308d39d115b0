"""One page a fault: a message of 1024 missing pages faults 1024 times.

Imitates: the case without batching of Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS 2017.
Source: that paper, which measured more than 220 ms for 4 MB so.
Inferred: nothing; all else is as in the image `npf`.
"""

FAULT_TIMER = 9


def fault_pages(world, row, arg):
    """Pages to ask the driver for: the missing one."""
    return 1


def responder_fault(world, row, arg):
    """As the image `npf`."""
    return FAULT_TIMER
