"""What registering with the notifiers asks of the caller (odp.md section 2); broken rules are reports."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

VM_LOCKS = frozenset({
    "mmap_lock", "page_table_lock", "i_mmap_lock", "i_mmap_mutex", "i_mmap_rwsem", "anon_vma", "anon_vma_lock",
    "anon_vma_rwsem",
})  # fmt: skip
"""Classes that ``mm_take_all_locks`` takes, or that lie below them: nobody who holds one may register."""


def invalid(mm: AddressSpace, function: str, text: str) -> OSError:
    """``WARN_ON`` and -EINVAL."""
    if mm.host.scheduler.current is not None:
        mm.host.lockdep.warn(mm.host.thread, function, text)
    return OSError(errno.EINVAL, f"{os.strerror(errno.EINVAL)}: {text}")


def check_no_vm_lock(mm: AddressSpace, function: str) -> None:
    """Registration takes all locks of the VM: report one that is held. Also checks that ``mm`` has users.

    :raises OSError: EINVAL.
    """
    thread = mm.host.thread
    for lock in thread.held:
        if str(lock) in VM_LOCKS:
            mm.host.lockdep.warn(thread, str(lock), f"{function} with {lock} held")
    check_users(mm, function)


def check_users(mm: AddressSpace, function: str) -> None:
    """``mm_users`` > 0. :raises OSError: EINVAL."""
    if not mm.users:
        raise invalid(mm, function, f"the address space {mm.name} has no users")
