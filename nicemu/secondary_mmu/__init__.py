"""Subscribers of the notifiers that are no RDMA device: what else mirrors a process's page table."""

from nicemu.secondary_mmu.kvm import Kvm
from nicemu.secondary_mmu.translation import Stale
from nicemu.secondary_mmu.xpmem import Xpmem

__all__ = ["Kvm", "Stale", "Xpmem"]
