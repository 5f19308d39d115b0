"""Registration by a program that may not pin so much, or whose host has not got it: through the uverbs boundary."""

import errno

import numpy as np
import pytest

from nicemu.abi.verbs import Access
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m

PAGE = 4096
RAM = 2048


@pytest.fixture
def lab_with():
    """A lab with so much memory and the host's further fields; gives it and a PD."""
    labs = []

    def make(**host):
        config = {"memory": "model", "host": {"ram_pages": RAM, "swap_pages": 8 * RAM, **host}}
        labs.append(Lab(load_config(None, config)))
        run = labs[-1].endpoint.execute
        labs[-1].host.console = lambda text: None
        return labs[-1], run(m.AllocPd(run(m.OpenDevice("nicemu0"))))

    yield make
    for lab in labs:
        lab.close()


def register(lab, pd, pages, access=Access.LOCAL_WRITE):
    """A region of so many fresh pages."""
    address = lab.endpoint.process.mmap(pages * PAGE)
    return lab.endpoint.execute(mem.RegMr(pd, address, pages * PAGE, int(access), address))


def pinned(lab):
    return int(np.count_nonzero(lab.host.pages.all_pins))


def test_rlimit_memlock_refuses_the_second_region_and_names_the_numbers(lab_with):
    lab, pd = lab_with(rlimit_memlock_bytes=100 * PAGE)
    register(lab, pd, 64)
    with pytest.raises(OSError, match="RLIMIT_MEMLOCK is 400 KiB: 200 KiB wanted, 256 KiB pinned") as caught:
        register(lab, pd, 50)
    assert caught.value.errno == errno.ENOMEM and pinned(lab) == 64
    register(lab, pd, 5000, Access.LOCAL_WRITE | Access.ON_DEMAND)  # nothing is pinned, nothing is counted


def test_cap_ipc_lock_lifts_the_limit(lab_with):
    lab, pd = lab_with(rlimit_memlock_bytes=0, cap_ipc_lock=True)
    register(lab, pd, 64)


def test_pinning_more_than_ram_fails_with_every_pin_released(lab_with):
    lab, pd = lab_with()
    other = lab.endpoint.process.mmap(512 * PAGE)
    lab.endpoint.process.write(other, b"kept" * 1024 * 512)
    with pytest.raises(OSError, match="out of memory") as caught:
        register(lab, pd, 2 * RAM)
    assert caught.value.errno == errno.ENOMEM
    assert pinned(lab) == 0 and lab.process.mm.memlock.pinned_vm == 0 and not lab.process.mm.memlock.pins
    (report,) = lab.host.oom_reports
    assert report.ram.pinned > RAM * 3 // 4 and report.pins == {"MR 1 of nicemu0": 2 * RAM}
    assert lab.host.counters["pswpout"] >= 512  # reclaim came first
    assert lab.endpoint.process.read(other, 4096 * 512) == b"kept" * 1024 * 512
    register(lab, pd, RAM // 2)


def test_program_that_is_killed_hears_it_from_every_call(lab_with):
    lab, pd = lab_with(oom_kills_program=True)
    with pytest.raises(OSError, match="was killed: Out of memory: Killed process 1"):
        register(lab, pd, 2 * RAM)
    assert pinned(lab) == 0
    with pytest.raises(OSError, match="was killed"):
        lab.endpoint.process.mmap(PAGE)


def test_control_group_of_the_program_bounds_what_it_can_pin(lab_with):
    lab, pd = lab_with(memory_max_pages=256)
    register(lab, pd, 200)
    with pytest.raises(OSError, match="in group program, limit 256") as caught:
        register(lab, pd, 100)
    assert caught.value.errno == errno.ENOMEM and pinned(lab) == 200
    assert lab.frames.available > RAM // 2
    register(lab, pd, 1000, Access.LOCAL_WRITE | Access.ON_DEMAND)
