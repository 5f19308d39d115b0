"""Any order of file operations, shared and private mappings, forks and reclaim gives the bytes of a simple reference:
a file is a byte array, a private mapping a dict of copied pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.mm import Fault
from nicemu.mm.file import FileKind
from nicemu.mm.migrate import migrate_page
from nicemu.mm.page_cache import drop_caches

PAGE = 4096
PAGES = 6
"""Of each mapping; the file is at most as long."""
RAM = 24
step = st.tuples(
    st.sampled_from(
        ["store shared", "store shared", "store private", "store private", "pwrite", "truncate", "punch", "fsync",
         "msync", "evict", "shrink", "drop", "migrate", "fork", "exit", "discard", "remap", "device", "load"]),
    st.integers(0, 1), st.integers(0, 2), st.integers(0, PAGES * PAGE - 1), st.integers(1, 2 * PAGE),
)  # fmt: skip


@dataclass
class Program:
    """A process, where it maps the file, and its private copies: page -> bytes."""

    process: Any
    shared: int
    private: int
    copies: dict[int, bytearray] = field(default_factory=dict)


class Reference:
    """What every byte should be, beside a machine that is told the same."""

    def __init__(self, machine: Any, kind: FileKind) -> None:
        self.machine = machine
        self.file = machine.run(machine.process.open_file("data", 3 * PAGE + 100, kind))
        self.data = bytearray(3 * PAGE + 100)
        at = [machine.run(machine.process.mmap_file(self.file, PAGES * PAGE, 3, shared)) for shared in (True, False)]
        self.programs = [Program(machine.process, *at)]
        self.number = 0

    def apply(self, what: str, who: int, kind: int, at: int, length: int) -> None:
        """One step on both."""
        self.number += 1
        program = self.programs[who % len(self.programs)]
        data = bytes([self.number % 255 + 1]) * min(length, PAGES * PAGE - at)
        private = what.endswith("private") or kind == 1
        if what.startswith("store") or what == "device":
            self.store(program, private, at, data[: PAGE - at % PAGE], what == "device")
        elif what == "load":
            self.check_page(program, private, at // PAGE)
        elif what in ("pwrite", "truncate", "punch"):
            self.change_file(what, at, data)
        elif what == "fork" and len(self.programs) < 3:
            child = self.machine.run(program.process.fork())
            copies = {page: bytearray(copy) for page, copy in program.copies.items()}
            self.programs.append(Program(child, program.shared, program.private, copies))
        elif what == "exit" and program is not self.programs[0]:
            self.machine.run(program.process.exit())
            self.programs.remove(program)
        else:
            self.memory(what, program, private, at, length)

    def store(self, program: Program, private: bool, at: int, data: bytes, device: bool) -> None:
        """The CPU, or a device that faults for write and then moves the bytes by itself. Not beyond the end of the file
        within its last page: what such bytes are later is nobody's promise."""
        if at // PAGE < -(-len(self.data) // PAGE):
            data = data[: max(0, len(self.data) - at)]
            if not data:
                return
        address, page = (program.private if private else program.shared) + at, at // PAGE
        try:
            if device:
                frame = self.machine.run(program.process.mm.fault_in(address & -PAGE, 1, True))[0] >> 1
                self.machine.frames.bytes_of(frame)[at % PAGE : at % PAGE + len(data)] = list(data)
            else:
                self.machine.run(program.process.write(address, data))
        except Fault as fault:
            assert fault.signal == "SIGBUS" and page >= -(-len(self.data) // PAGE)
            return
        assert page < -(-len(self.data) // PAGE)
        if private:
            copy = program.copies.setdefault(page, bytearray(self.page(page)))
            copy[at % PAGE : at % PAGE + len(data)] = data
        else:
            self.data[at : at + len(data)] = data

    def page(self, number: int) -> bytes:
        """A page of the file; beyond its end zeros."""
        return bytes(self.data[number * PAGE : (number + 1) * PAGE]).ljust(PAGE, b"\0")

    def change_file(self, what: str, at: int, data: bytes) -> None:
        process, file = self.machine.process, self.file
        if what == "pwrite":
            self.machine.run(process.pwrite(file, data, at))
            self.data.extend(bytes(max(0, at + len(data) - len(self.data))))
            self.data[at : at + len(data)] = data
        elif what == "truncate":
            self.machine.run(process.ftruncate(file, at))
            self.data = self.data[:at] + bytearray(max(0, at - len(self.data)))
            for program in self.programs:
                program.copies = {page: copy for page, copy in program.copies.items() if page < -(-at // PAGE)}
        else:
            self.machine.run(process.fallocate(file, 3, at, len(data)))
            inside = len(self.data[at : at + len(data)])
            self.data[at : at + inside] = bytes(inside)

    def memory(self, what: str, program: Program, private: bool, at: int, length: int) -> None:
        """What changes no byte, but discarding private copies."""
        machine, process = self.machine, program.process
        address = (program.private if private else program.shared) + at // PAGE * PAGE
        if what == "fsync":
            machine.run(process.fsync(self.file))
        elif what == "msync":
            machine.run(process.msync(address, PAGE, 4))
        elif what == "evict":
            machine.run(machine.host.reclaim.evict(process.mm, address))
        elif what == "shrink":
            machine.run(machine.host.reclaim.shrink(length % 16 + 1))
        elif what == "drop":
            machine.run(drop_caches(machine.host))
        elif what == "migrate":
            machine.run(migrate_page(process.mm, address))
        elif what == "discard":
            machine.run(process.madvise(address, PAGE, 4))
            if private:
                program.copies.pop(at // PAGE, None)
        elif what == "remap":
            machine.run(process.mmap(PAGE))  # in the way
            moved = machine.run(process.mremap(program.shared, PAGES * PAGE, (PAGES + 1) * PAGE))
            machine.run(process.munmap(moved + PAGES * PAGE, PAGE))
            program.shared = moved

    def check_page(self, program: Program, private: bool, page: int) -> None:
        """Bytes beyond the end of the file are not looked at."""
        address = (program.private if private else program.shared) + page * PAGE
        end = -(-len(self.data) // PAGE)
        if page >= end:
            with pytest.raises(Fault) as caught:
                self.machine.run(program.process.read(address, 1))
            assert caught.value.signal == "SIGBUS"
            return
        found = self.machine.run(program.process.read(address, PAGE))
        expected = bytes(program.copies[page]) if private and page in program.copies else self.page(page)
        inside = min(PAGE, len(self.data) - page * PAGE)
        assert found[:inside] == expected[:inside]

    def check(self) -> None:
        """Everything, and that nothing is left afterwards."""
        machine, size = self.machine, len(self.data)
        assert machine.run(machine.process.pread(self.file, size + PAGE, 0)) == bytes(self.data)
        for program in self.programs:
            for page in range(PAGES):
                self.check_page(program, False, page)
                self.check_page(program, True, page)
        assert not machine.host.reports
        machine.check_counts(*(program.process.mm for program in self.programs))
        machine.run(machine.process.fsync(self.file))
        machine.run(drop_caches(machine.host))
        assert machine.run(machine.process.pread(self.file, size, 0)) == bytes(self.data)
        for program in self.programs:
            machine.run(program.process.exit())
        machine.run(machine.process.unlink(self.file))
        machine.run(machine.process.close(self.file))
        kept = bool(machine.host.zero_frame) + bool(machine.host.xip_sparse)
        assert machine.frames.allocated == kept and machine.host.swap.used == 0 and not machine.host.files


@pytest.mark.parametrize(
    ("era", "kind"),
    [("v3.6", FileKind.REGULAR), ("v3.7", FileKind.SHMEM), ("v3.7", FileKind.XIP), ("v6.12", FileKind.REGULAR),
     ("v6.12", FileKind.SHMEM), ("v6.12", FileKind.DAX)],
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=40))
def test_every_byte_is_as_the_reference_says(
    make_machine: Any, era: str, kind: FileKind, steps: list[tuple[str, int, int, int, int]]
) -> None:
    machine = make_machine(era, ram=RAM + 4 * PAGES * kind.name.startswith(("X", "D")))
    reference = Reference(machine, kind)
    for what, who, private, at, length in steps:
        if kind != FileKind.XIP or what != "punch":
            reference.apply(what, who, private, at, length)
    reference.check()
