"""Soft-dirty, /proc/pid/pagemap, userfaultfd write-protection and PAGEMAP_SCAN."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

from nicemu.mm import IntervalNotifier, NotifierRange
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.notifier import Event
from nicemu.mm.page_table import UFFD_WP, WRITE
from nicemu.mm.soft_dirty import (
    EVERYTHING,
    PM_EXCLUSIVE,
    PM_PRESENT,
    PM_SOFT_DIRTY,
    PM_SWAP,
    PM_UFFD_WP,
    clear_refs,
    pagemap,
)  # fmt: skip
from nicemu.mm.userfaultfd import pagemap_scan
from nicemu.timeline.host import Steps

PAGE = 4096


class Listener(IntervalNotifier):
    """Notes what it is told."""

    name = "listener"

    def __init__(self) -> None:
        self.heard: list[tuple[Event, int, int]] = []

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.set_seq(cur_seq)
        self.heard.append((range.event, range.start, range.end))
        yield from ()
        return True


def written(machine: Any, pages: int = 4) -> int:
    at = int(machine.run(machine.process.mmap(pages * PAGE)))
    machine.run(machine.process.write(at, b"x" * pages * PAGE))
    machine.kinds()
    return at


def listen(machine: Any, at: int, pages: int = 4) -> Listener:
    listener = Listener()
    machine.mm.intervals.insert(listener, at, pages * PAGE)
    return listener


def with_bit(machine: Any, at: int, bit: int, pages: int = 4, process: Any = None) -> list[int]:
    """Pages whose pagemap entry has the bit."""
    mm = (process or machine.process).mm
    entries = machine.run(pagemap(mm, at, pages))
    return [int(page) for page in np.flatnonzero(entries & np.uint64(bit))]


# clear_refs and pagemap


def test_clear_refs_notifies_everything_and_flushes_last(machine: Any) -> None:
    at = written(machine)
    listener = listen(machine, at)
    machine.run(clear_refs(machine.mm))
    assert machine.kinds() == ["notifier_start", "pte_protect", "notifier_end", "tlb_flush"]
    assert listener.heard == [(Event.SOFT_DIRTY, 0, EVERYTHING)]


def test_only_pages_written_since_are_soft_dirty(machine: Any) -> None:
    at = written(machine)
    assert with_bit(machine, at, PM_SOFT_DIRTY) == [0, 1, 2, 3]
    machine.run(clear_refs(machine.mm))
    assert with_bit(machine, at, PM_SOFT_DIRTY) == []
    machine.run(machine.process.read(at, 4 * PAGE))
    machine.run(machine.process.write(at + PAGE, b"y"))
    assert with_bit(machine, at, PM_SOFT_DIRTY) == [1]


def test_a_device_write_fault_is_seen(machine: Any) -> None:
    at = written(machine)
    machine.run(clear_refs(machine.mm))
    machine.run(machine.mm.fault_in(at + 2 * PAGE, 1, True))
    assert with_bit(machine, at, PM_SOFT_DIRTY) == [2]


def test_a_pinned_page_is_left_writable(machine: Any) -> None:
    """A device writes to it without a fault."""
    at = written(machine)
    machine.run(machine.mm.pin(at, 1, True))
    machine.run(clear_refs(machine.mm))
    assert with_bit(machine, at, PM_SOFT_DIRTY) == [0] and machine.mm.page_table.get(at // PAGE) & WRITE


def test_swap_and_migration_keep_the_bit(machine: Any) -> None:
    from nicemu.mm.migrate import migrate_page

    at = written(machine)
    machine.run(clear_refs(machine.mm))
    machine.run(machine.process.write(at, b"y"))
    machine.run(migrate_page(machine.mm, at))
    for page in (0, 1):
        assert machine.run(machine.host.reclaim.evict(machine.mm, at + page * PAGE))
    assert with_bit(machine, at, PM_SWAP) == [0, 1] and with_bit(machine, at, PM_SOFT_DIRTY) == [0]
    machine.run(machine.process.read(at, 2 * PAGE))
    assert with_bit(machine, at, PM_SOFT_DIRTY) == [0]


def test_pagemap_names_frames_and_who_has_them_alone(machine: Any) -> None:
    at = written(machine)
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"y"))
    assert with_bit(machine, at, PM_PRESENT) == [0, 1, 2, 3] and with_bit(machine, at, PM_EXCLUSIVE) == [0]
    assert machine.run(pagemap(machine.mm, at, 1))[0] & np.uint64((1 << 55) - 1) == machine.frame(at)
    assert with_bit(machine, at, PM_EXCLUSIVE, process=child) == [0]


def test_soft_dirty_is_not_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    written(machine)
    with pytest.raises(NotInThisKernel):
        machine.run(clear_refs(machine.mm))


# userfaultfd write-protection


def watched(machine: Any, asynchronous: bool = False) -> tuple[int, Any]:
    """Written memory that a handler write-protects."""
    at = written(machine)
    handler = machine.run(machine.process.userfaultfd(asynchronous))
    machine.run(handler.register(at, 4 * PAGE))
    machine.kinds()
    machine.run(handler.writeprotect(at, 4 * PAGE, True))
    return at, handler


def test_write_protect_order(machine: Any) -> None:
    at, _ = watched(machine)
    assert machine.kinds() == ["notifier_start", "pte_protect", "notifier_end", "tlb_flush"]
    assert with_bit(machine, at, PM_UFFD_WP) == [0, 1, 2, 3]


def test_write_protecting_untouched_memory_notifies_nobody(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    handler = machine.run(machine.process.userfaultfd())
    machine.run(handler.register(at, PAGE))
    machine.run(handler.writeprotect(at, PAGE, True))
    assert machine.kinds() == []


def test_write_protect_is_a_protection_change(machine: Any) -> None:
    at = written(machine)
    listener, handler = listen(machine, at), machine.run(machine.process.userfaultfd())
    machine.run(handler.register(at, 4 * PAGE))
    machine.run(handler.writeprotect(at, PAGE, True))
    assert listener.heard == [(Event.PROTECTION_VMA, at, at + PAGE)]


@pytest.mark.parametrize("device", [False, True], ids=["cpu", "device"])
def test_a_write_waits_for_the_handler(machine: Any, device: bool) -> None:
    at, handler = watched(machine)
    steps = machine.mm.fault_in(at + PAGE, 1, True) if device else machine.process.write(at + PAGE, b"new")
    writing = machine.scheduler.spawn(steps, "writer")

    def resolve() -> Steps[int]:
        address = yield from handler.read()
        assert not writing.finished and (yield from machine.process.read(address, 1)) == b"x"
        yield from handler.writeprotect(address, PAGE, False)
        return address

    resolving = machine.scheduler.spawn(resolve(), "handler")
    machine.timeline.advance(lambda: writing.finished and resolving.finished)
    assert writing.finished and resolving.result == at + PAGE, machine.timeline.who_waits()
    assert with_bit(machine, at, PM_UFFD_WP) == [0, 2, 3]


def test_the_handler_may_unmap_what_is_waited_for(machine: Any) -> None:
    """mmap_lock is not held while the handler works."""
    at, handler = watched(machine)
    writing = machine.scheduler.spawn(machine.process.write(at, b"new"), "writer")
    writing.joined = True

    def resolve() -> Steps[None]:
        yield from handler.read()
        yield from machine.process.munmap(at, 4 * PAGE)
        handler.wake(at, PAGE)

    resolving = machine.scheduler.spawn(resolve(), "handler")
    machine.timeline.advance(lambda: writing.finished and resolving.finished)
    assert isinstance(writing.error, OSError) and writing.error.errno == errno.EFAULT
    machine.check_counts()


def test_two_writers_of_a_page_send_one_message(machine: Any) -> None:
    at, handler = watched(machine)
    writers = [machine.scheduler.spawn(machine.process.write(at, bytes([i])), f"writer {i}") for i in (1, 2)]
    machine.timeline.advance(lambda: False)
    assert not any(writer.finished for writer in writers)
    assert machine.run(handler.read()) == at
    machine.run(handler.writeprotect(at, PAGE, False))
    machine.timeline.advance(lambda: all(writer.finished for writer in writers))
    assert all(writer.finished for writer in writers) and not handler._messages


def test_protection_survives_swap(machine: Any) -> None:
    at, handler = watched(machine, asynchronous=True)
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.run(machine.process.read(at, 1))
    assert machine.mm.page_table.get(at // PAGE) & (UFFD_WP | WRITE) == UFFD_WP
    assert handler.asynchronous


def test_a_child_inherits_no_protection(machine: Any) -> None:
    at, _ = watched(machine)
    child = machine.run(machine.process.fork())
    machine.run(child.write(at, b"y"))
    assert machine.run(machine.process.read(at, 1)) == b"x"


def test_unregister_lets_everybody_go(machine: Any) -> None:
    at, handler = watched(machine)
    writing = machine.scheduler.spawn(machine.process.write(at, b"new"), "writer")
    machine.timeline.advance(lambda: False)
    machine.run(handler.unregister(at, 4 * PAGE))
    machine.timeline.advance(lambda: writing.finished)
    assert writing.finished and with_bit(machine, at, PM_UFFD_WP) == []


def test_errors_of_registration(machine: Any) -> None:
    at = written(machine)
    handler, other = machine.run(machine.process.userfaultfd()), machine.run(machine.process.userfaultfd())
    machine.run(handler.register(at, PAGE))
    for steps, number in (
        (handler.register(at + 1, PAGE), errno.EINVAL),
        (handler.register(at + 64 * PAGE, PAGE), errno.EINVAL),
        (other.register(at, PAGE), errno.EBUSY),
        (handler.writeprotect(at + PAGE, PAGE, True), errno.ENOENT),
    ):
        with pytest.raises(OSError) as error:
            machine.run(steps)
        assert error.value.errno == number


def test_userfaultfd_is_not_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    with pytest.raises(NotInThisKernel):
        machine.run(machine.run(machine.process.userfaultfd()).register(written(machine), PAGE))


# PAGEMAP_SCAN


def test_pagemap_scan_finds_what_was_written_and_protects_it(machine: Any) -> None:
    at, _ = watched(machine, asynchronous=True)
    machine.run(machine.process.write(at + PAGE, b"y"))
    machine.kinds()
    assert machine.run(pagemap_scan(machine.mm, at, at + 4 * PAGE)) == [at + PAGE]
    assert machine.kinds() == ["notifier_start", "pte_protect", "tlb_flush", "notifier_end"]
    assert machine.run(pagemap_scan(machine.mm, at, at + 4 * PAGE)) == []


def test_pagemap_scan_that_only_looks_notifies_nobody(machine: Any) -> None:
    at, _ = watched(machine, asynchronous=True)
    machine.run(machine.process.write(at, b"y"))
    machine.kinds()
    assert machine.run(pagemap_scan(machine.mm, at, at + 4 * PAGE, write_protect=False)) == [at]
    assert machine.kinds() == []


def test_pagemap_scan_is_a_protection_change(machine: Any) -> None:
    at, _ = watched(machine, asynchronous=True)
    listener = listen(machine, at)
    machine.run(pagemap_scan(machine.mm, at, at + 4 * PAGE))
    assert listener.heard == [(Event.PROTECTION_VMA, at, at + 4 * PAGE)]
