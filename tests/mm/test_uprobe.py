"""uprobes: a page of a private mapping is replaced by a patched copy (``__replace_page``)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm.uprobe import uprobe_write_opcode
from tests.mm.test_disciplines import Sleeper, SleepingInterval

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
TEXT = b"instructions" * 300


def program_text(machine: Any) -> int:
    """Memory with bytes that the program may not write."""
    at = int(machine.run(machine.process.mmap(PAGE)))
    machine.run(machine.process.write(at, TEXT))
    machine.run(machine.process.mprotect(at, PAGE, 5))
    machine.kinds()
    return at


def test_the_copy_has_the_opcode_and_the_rest(machine: Any) -> None:
    at = program_text(machine)
    frame = machine.frame(at)
    machine.run(uprobe_write_opcode(machine.mm, at + 100, b"\xcc"))
    assert machine.run(machine.process.read(at, len(TEXT))) == TEXT[:100] + b"\xcc" + TEXT[101:]
    assert machine.frame(at) != frame
    machine.check_counts()


def test_others_keep_their_page(machine: Any) -> None:
    at = program_text(machine)
    child = machine.run(machine.process.fork())
    machine.run(uprobe_write_opcode(machine.mm, at, b"\xcc"))
    assert machine.run(child.read(at, len(TEXT))) == TEXT
    machine.check_counts(machine.mm, child.mm)


def test_the_copy_is_an_ordinary_page(machine: Any) -> None:
    at = program_text(machine)
    machine.run(uprobe_write_opcode(machine.mm, at, b"\xcc"))
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.read(at, 1)) == b"\xcc"


def test_untouched_memory_can_be_patched(machine: Any) -> None:
    at = int(machine.run(machine.process.mmap(PAGE, prot=5)))
    machine.run(uprobe_write_opcode(machine.mm, at + 7, b"\xcc"))
    assert machine.run(machine.process.read(at, 9)) == bytes(7) + b"\xcc\0"
    machine.check_counts()


def test_what_cannot_be_probed(machine: Any) -> None:
    at, writable = program_text(machine), int(machine.run(machine.process.mmap(PAGE)))
    for address, opcode in ((writable, b"\xcc"), (at + PAGE - 1, b"\xcc\xcc"), (at, b""), (at + 64 * PAGE, b"\xcc")):
        with pytest.raises(OSError) as error:
            machine.run(uprobe_write_opcode(machine.mm, address, opcode))
        assert error.value.errno == errno.EINVAL


SET = ["pte_clear", "tlb_flush", "change_pte", "pte_set"]
ORDER = {
    "v3.6": [*SET, "free"],
    "v3.6+srcu": [*SET, "free"],
    "v3.7-seed": [*SET, "free"],
    "v3.7": ["notifier_start", *SET, "notifier_end", "free"],
    "v6.12": ["notifier_start", "pte_clear", "tlb_flush", "pte_set", "notifier_end", "free"],
}


@pytest.mark.parametrize("era", ERAS)
def test_order_of_each_era(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.run(uprobe_write_opcode(machine.mm, program_text(machine), b"\xcc"))
    assert machine.kinds() == ORDER[era]


@pytest.mark.parametrize("era", ERAS)
def test_a_sleeping_subscriber_is_reported_until_the_call_is_wrapped(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    at = program_text(machine)
    machine.run(machine.mm.notifiers.register(Sleeper()))
    if machine.host.discipline.interval:
        machine.mm.intervals.insert(SleepingInterval(), at, PAGE)
    machine.run(uprobe_write_opcode(machine.mm, at, b"\xcc"))
    locked = {("uprobe", "page_table_lock")} if era in ("v3.6", "v3.6+srcu", "v3.7-seed") else set()
    assert {(report.operation, report.lock) for report in machine.host.reports} == locked
