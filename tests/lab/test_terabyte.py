"""Registering 1 TiB on demand costs what is mapped: time, memory, commands."""

from __future__ import annotations

import time

import pytest

from nicemu.abi.verbs import Access
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from tests.bytecodes import bytecodes

ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND
TIB, PAGE, GIB = 1 << 40, 4096, 1 << 30
PROT = 3


def resident_kib() -> int:
    """VmRSS of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.fixture
def lab():
    lab = Lab(load_config(None, {"memory": "model"}))
    yield lab
    lab.close()


def register(lab, length, address, iova=None):
    run = lab.endpoint.execute
    pd = run(m.AllocPd(run(m.OpenDevice("nicemu0"))))
    commands = int(lab.devices[0].row.commands)
    before, started = resident_kib(), time.perf_counter()
    mr = run(mem.RegMr(pd, address, length, int(ODP), address if iova is None else iova))
    seconds = time.perf_counter() - started
    return mr, seconds, resident_kib() - before, int(lab.devices[0].row.commands) - commands


def test_1_tib_is_registered_in_one_command_and_little_memory(lab, capsys):
    address = lab.endpoint.process.mmap(TIB, memory="model")
    for page in (0, 5, TIB // PAGE - 1):  # present: the snapshot finds them
        lab.endpoint.process.write(address + page * PAGE, b"x")
    nodes = int(lab.world.control[0].node_next)
    mr, seconds, kib, commands = register(lab, TIB, address)
    with capsys.disabled():
        print(f"\n1 TiB on demand: {seconds * 1e3:.1f} ms, {kib} KiB resident, {commands} commands")
    assert commands == 3  # CREATE_MKEY, and UPDATE_MTT for each leaf with something present
    assert int(lab.world.control[0].node_next) - nodes <= 8
    assert kib < 64 * 1024
    region = lab.driver.mrs.get(mr.handle)
    assert list(region.umem.pages.numbers(0, TIB // PAGE)) == [0, 5, TIB // PAGE - 1]


def test_invalidating_1_tib_costs_what_is_mapped(lab):
    address = lab.endpoint.process.mmap(TIB, memory="model")
    lab.endpoint.process.write(address, b"x")
    lab.endpoint.process.madvise(address, PAGE, 4)  # loads what is compiled
    for at in (PAGE, TIB // 2):
        lab.endpoint.process.write(address + at, b"x")
    mr, *_ = register(lab, TIB, address)
    zaps = int(lab.devices[0].row.zaps)
    ran = bytecodes(lambda: lab.endpoint.process.madvise(address, TIB, 4))
    assert int(lab.devices[0].row.zaps) - zaps == 2 and ran < 50_000
    assert lab.driver.mrs.get(mr.handle).umem.mapped == 0


def test_registering_1_tib_does_the_work_of_8_mib_with_as_many_pages(lab):
    """Counted: bytecodes of the host, commands of the device."""
    taken = []
    for length in (8 << 20, TIB):
        address = lab.endpoint.process.mmap(length, memory="model")
        for at in (0, length // 2, length - PAGE):
            lab.endpoint.process.write(address + at, b"x")
        before = int(lab.devices[0].row.commands)
        ran = bytecodes(lambda address=address, length=length: register(lab, length, address))
        taken.append((int(lab.devices[0].row.commands) - before, ran))
    (small_commands, small), (commands, large) = taken
    assert commands == small_commands and large < 1.1 * small


def test_the_whole_address_space_is_registered_for_nothing(lab):
    taken = []
    ran = bytecodes(lambda: taken.append(register(lab, (1 << 64) - 1, 0)))
    (_, _, kib, commands), *_ = taken
    assert commands == 1 and kib < 1024 and ran < 50_000
