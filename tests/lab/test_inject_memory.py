"""`inject:` in the mm: allocations, swap, bad memory, the OOM killer."""

import errno

import pytest

from nicemu.abi.verbs import Access, WcStatus
from nicemu.lab.inject import idle
from nicemu.mm.page import EHWPOISON, Fault
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from tests.lab.pair import connected_pair
from tests.lab.test_inject import statuses
from tests.lab.test_watchdog import ODP, post

MS = 1_000_000
PAGEOUT = 21


def test_a_pinned_registration_without_memory_fails_and_leaves_nothing_pinned(faulty):
    lab = faulty({"event": "allocation_failure", "operation": "fault"})
    run = lab.endpoint.execute
    pd = run(m.AllocPd(run(m.OpenDevice("nicemu0"))))
    address = lab.endpoint.process.posix_memalign(16384, 4096)
    with pytest.raises(m.VerbsError) as caught:
        run(mem.RegMr(pd, address, 16384, int(Access.LOCAL_WRITE), address))
    assert caught.value.errno == errno.ENOMEM and len(lab.driver.mrs) == 0
    run(mem.RegMr(pd, address, 16384, int(Access.LOCAL_WRITE), address))


def test_a_device_s_page_fault_without_memory_fails_its_request(faulty):
    lab = faulty({"event": "allocation_failure", "operation": "fault"})
    cq, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    assert statuses(lab, cq) == [(0, WcStatus.LOC_PROT_ERR)]


def test_only_the_named_operation_is_without_memory(faulty):
    lab = faulty({"event": "allocation_failure", "operation": "collapse"})
    address = lab.endpoint.process.posix_memalign(4096, 4096)
    lab.endpoint.process.write(address, b"x")
    assert idle(lab) == [
        "inject.0: allocation_failure in collapse: did not fire: never saw an allocation of pages in collapse"
    ]


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("memory", ["model", "arena"])
def test_a_page_that_cannot_be_read_back_is_an_error_and_the_next_try_goes_well(faulty, pages, memory):
    lab = faulty({"event": "swap_read_error"}, memory=memory)
    process = lab.endpoint.process
    connected_pair(lab, ODP)
    size = pages * 4096
    buffer = process.posix_memalign(size, 4096)
    run = lab.endpoint.execute
    region = run(mem.RegMr(1, buffer, size, int(ODP), buffer))
    process.write(buffer, b"kept" * (size // 4))
    run(mem.AdviseMr(1, 1, 1, ((buffer, size, region.lkey),)))
    process.madvise(buffer, size, PAGEOUT)
    taken, used = lab.frames.available, lab.host.swap.used
    with pytest.raises(m.VerbsError) as caught:
        run(mem.AdviseMr(1, 1, 1, ((buffer, size, region.lkey),)))
    assert caught.value.errno == errno.EFAULT
    assert (lab.frames.available, lab.host.swap.used) == (taken, used)
    run(mem.AdviseMr(1, 1, 1, ((buffer, size, region.lkey),)))
    assert process.read(buffer, size) == b"kept" * (size // 4)


def test_the_program_that_touches_such_a_page_gets_a_bus_error(faulty):
    lab = faulty({"event": "swap_read_error"})
    process = lab.endpoint.process
    buffer = process.posix_memalign(4096, 4096)
    process.write(buffer, b"kept")
    process.madvise(buffer, 4096, PAGEOUT)
    with pytest.raises(Fault) as caught:
        process.read(buffer, 4)
    assert caught.value.signal == "SIGBUS"
    assert process.read(buffer, 4) == b"kept"


def test_slow_swap_takes_longer_by_what_was_asked_for(faulty):
    took = []
    for lab in (faulty(), faulty({"event": "slow_swap", "extra_ns": 400_000})):
        process = lab.endpoint.process
        buffer = process.posix_memalign(4096, 4096)
        process.write(buffer, b"kept")
        process.madvise(buffer, 4096, PAGEOUT)
        began = lab.world.now
        assert process.read(buffer, 4) == b"kept"
        took.append(lab.world.now - began)
    assert took[1] - took[0] == 400_000


def test_failed_memory_under_a_region_is_gone_for_the_program_and_the_device(faulty):
    lab = faulty({"event": "memory_failure", "mr": 1, "page": 0, "at_ns": 10 * MS})
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(11 * MS)
    assert lab.injected[0].fired and lab.host.counters["hwpoison"] == 1
    with pytest.raises(Fault) as caught:
        lab.endpoint.process.read(address, 4)
    assert caught.value.errno == EHWPOISON


def test_memory_that_is_about_to_fail_moves_and_nobody_notices(faulty):
    lab = faulty({"event": "memory_failure", "at_ns": 10 * MS, "soft": True})
    _, _, address, _ = connected_pair(lab, ODP)
    lab.endpoint.process.write(address, b"kept")
    lab.timeline.pass_time(11 * MS)
    assert lab.injected[0].fired and lab.endpoint.process.read(address, 4) == b"kept"


@pytest.mark.parametrize("config, why", [
    ({}, "at 10000000 ns there was no memory under page 0 of MR 1"),
    ({"memory": "arena", "touch": True}, "the memory cannot be taken out of use: Device or resource busy"),
])  # fmt: skip
def test_a_memory_failure_that_cannot_be_says_why(faulty, config, why):
    touch = config.pop("touch", False)
    lab = faulty({"event": "memory_failure", "at_ns": 10 * MS}, **config)
    if touch:
        _, qps, address, mr = connected_pair(lab, ODP)
        post(lab, qps[0], address, mr)
    lab.timeline.pass_time(11 * MS)
    assert idle(lab) == [f"inject.0: memory_failure page 0 of MR 1: did not fire: {why}"]


def test_the_oom_killer_on_purpose(faulty):
    lab = faulty({"event": "oom_kill", "at_ns": MS}, host={"name": "strict", "oom_kills_program": True})
    address = lab.endpoint.process.posix_memalign(4096, 4096)
    lab.endpoint.process.write(address, b"x")
    lab.timeline.pass_time(2 * MS)
    with pytest.raises(OSError, match="was killed"):
        lab.endpoint.process.read(address, 1)
    assert lab.injected[0].fired


def test_an_oom_killer_that_may_kill_nobody_says_so(faulty):
    lab = faulty({"event": "oom_kill", "at_ns": MS})
    lab.timeline.pass_time(2 * MS)
    assert idle(lab) == ["inject.0: oom_kill: did not fire: no process may be killed (host.oom_kills_program)"]


def test_a_page_of_shared_memory_that_cannot_be_read_back_is_not_left_in_the_page_cache(faulty):
    lab = faulty({"event": "swap_read_error"})
    process = lab.endpoint.process
    buffer = process.mmap_shared(4096, 3)
    process.write(buffer, b"kept")
    process.madvise(buffer, 4096, PAGEOUT)
    free = lab.frames.available
    with pytest.raises(Fault) as caught:
        process.read(buffer, 4)
    assert caught.value.signal == "SIGBUS" and lab.frames.available == free
    assert process.read(buffer, 4) == b"kept"
