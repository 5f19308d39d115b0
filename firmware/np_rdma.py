"""Registered memory that nobody pins: a missing page is redirected, found out afterwards, and the access repeated.

Imitates: NP-RDMA (arXiv 2310.11062), RDMA over commodity NICs without pinned memory.
Source: its abstract only: an IOMMU redirects accesses to missing pages; 0.1 to 2 us more without a fault, 3.5 to 5.7 us
for a minor fault, 60 us for a major one. The profiles configs/nic/np_rdma.yaml and configs/host/np_rdma.yaml have them.
Inferred: all of how. NP-RDMA is software in both ends; here the NIC does it. Bytes of a missing page move to or from a
redirect page (counter `redirects`), which takes a DMA's time; they are never delivered, for the NIC finds out and
repeats the access. Requests and responses wait in order meanwhile, in the backup ring, and nobody is told to retry.
"""

from nicemu.firmware import REDIRECT, STALL


def missing_page(world, row, arg):
    """A missing page: its bytes go to, or come from, the redirect page."""
    return REDIRECT


def responder_fault(world, row, arg):
    """The request waits for its page, and what comes behind it."""
    return STALL


def response_fault(world, row, arg):
    """A READ response waits likewise."""
    return 1


def unreliable_fault(world, row, arg):
    """And what no peer would send again."""
    return 1
