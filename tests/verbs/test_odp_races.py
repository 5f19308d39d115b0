"""Memory that goes, comes, moves or changes its rights while messages are under way.

Which message meets which change is chance on a real kernel: the tests say what must hold whoever wins. No message
hangs, the bytes that arrive were in the source at some moment, and memory that is nobody's target keeps its bytes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pyverbs import mem_alloc

from .mappings import PAGEOUT, READ_ONLY, Mapping, file_of
from .memory import PAGE, READ_WRITE, make_pattern
from .odp import MAPPERS, arrived, join, joined, mapped
from .sides import atomic, read, recv, send, write
from .waiting import completions, leftovers, status, successes

PAGES = 8
MESSAGES = 16
OVER = {"SUCCESS", "REM_ACCESS_ERR", "WR_FLUSH_ERR"}
"""How a request may end whose target goes while it is under way, or before it on its QP one's did."""


@contextmanager
def meanwhile(step: Callable[[], None]) -> Iterator[None]:
    """Another thread runs `step` again and again, the first time before the block begins. Its error is the block's."""
    began, stop, errors = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            while not stop.is_set():
                step()
                began.set()
        except BaseException as error:
            errors.append(error)
        finally:
            began.set()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait(5)
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive(), "the other thread hangs"
    if errors:
        raise errors[0]


def made_of(data: bytes, *sources: bytes) -> bool:
    """Every aligned word of 8 bytes is that of one of `sources` at its place."""
    views = [memoryview(each).cast("Q") for each in (data, *sources)]
    return all(got in wanted for got, *wanted in zip(*views, strict=True))


@pytest.fixture(params=MAPPERS)
def memory(request, near, far):
    """Connected QPs and two filled regions."""
    ends = joined(near, far)
    source, target = mapped(request.param, near, far, PAGES)
    source.fill(1)
    target.fill(2)
    return ends, source, target


def arrive(op, ends, source, target):
    """`arrived`, many times."""
    for _ in range(MESSAGES):
        arrived(op, ends, source, target)


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_the_targets_pages_are_discarded_during_messages(memory, op):
    ends, source, target = memory
    with meanwhile(target.discard):
        arrive(op, ends, source, target)
    assert made_of(target.bytes(), make_pattern(1, source.length), bytes(source.length))
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_the_sources_pages_are_discarded_during_messages(memory, op):
    ends, source, target = memory
    patterns = [make_pattern(seed, source.length) for seed in (5, 6)]
    with meanwhile(source.discard):
        for number in range(MESSAGES):
            pattern = patterns[number % 2]
            source.fill(pattern)
            arrived(op, ends, source, target)
            assert made_of(target.bytes(), pattern, bytes(source.length))


def test_both_sides_lose_pages_in_turn(memory):
    ends, source, target = memory
    turn = iter(range(10**9))

    def step() -> None:
        number = next(turn) % PAGES
        source.discard(number * PAGE, PAGE)
        target.discard((PAGES - 1 - number) * PAGE, PAGE)

    with meanwhile(step):
        for op in ("send", "write", "read") * 6:
            arrived(op, ends, source, target)
    assert made_of(target.bytes(), make_pattern(1, source.length), bytes(source.length))


def test_pages_are_paged_out_during_messages(memory, paged_out):
    ends, source, target = memory
    before = paged_out()

    def step() -> None:
        for region in (source, target):
            mem_alloc.madvise(region.address, region.length, PAGEOUT)

    with meanwhile(step):
        for op in ("send", "write", "read") * 4:
            target.fill(2)
            arrived(op, ends, source, target)
            assert target.bytes() == make_pattern(1, source.length)
    assert paged_out() > before


def test_atomics_add_up_while_their_neighbours_go(memory):
    (a, _b), source, target = memory
    target.fill(bytes(8))
    with meanwhile(lambda: target.discard(PAGE)):
        for _ in range(MESSAGES):
            atomic(a, source.sge(0, 8), target.remote(), add=3)
            write(a, source.sge(PAGE, PAGE), target.remote(PAGE))
            successes(a.side.cq, 2)
    assert target.bytes(0, 8) == (3 * MESSAGES).to_bytes(8, "little")


def test_an_atomic_happens_once_while_its_result_page_goes(memory):
    (a, _b), source, target = memory
    target.fill(bytes(8))
    with meanwhile(source.discard):
        for _ in range(MESSAGES):
            atomic(a, source.sge(0, 8), target.remote(), add=1)
            successes(a.side.cq, 1)
    assert target.bytes(0, 8) == MESSAGES.to_bytes(8, "little")


# -- memory that goes for good


def finish(qp, count):
    """Statuses of `count` requests, all of which must end."""
    return [status(done) for done in completions(qp.side.cq, count, 10)]


@pytest.mark.parametrize("op", ["write", "read"])
def test_the_far_memory_is_unmapped_under_requests(memory, op):
    """Memory elsewhere that is touched afterwards, perhaps with the same page frames, keeps its bytes."""
    (a, _b), near_region, far_region = memory
    for _ in range(8):
        (write if op == "write" else read)(a, near_region.sge(), far_region.remote())
    elsewhere = Mapping(a.side, PAGES)
    far_region.unmap()
    elsewhere.fill(9)
    statuses = finish(a, 8)
    assert set(statuses) <= OVER
    assert elsewhere.bytes() == make_pattern(9, elsewhere.length)
    if op == "read":
        assert made_of(near_region.bytes(), make_pattern(1, near_region.length), make_pattern(2, near_region.length))


@pytest.mark.parametrize("op", ["write", "read"])
def test_the_near_memory_is_unmapped_under_requests(memory, op):
    (a, _b), near_region, far_region = memory
    for _ in range(8):
        (write if op == "write" else read)(a, near_region.sge(), far_region.remote())
    elsewhere = Mapping(a.side, PAGES)
    near_region.unmap()
    elsewhere.fill(9)
    assert set(finish(a, 8)) <= {"SUCCESS", "LOC_PROT_ERR", "WR_FLUSH_ERR"}
    assert elsewhere.bytes() == make_pattern(9, elsewhere.length)
    assert made_of(far_region.bytes(), make_pattern(1, far_region.length), make_pattern(2, far_region.length))


def test_a_receives_memory_is_unmapped_under_messages(memory):
    (a, b), source, target = memory
    for _ in range(8):
        recv(b, target.sge())
    for _ in range(8):
        send(a, source.sge())
    elsewhere = Mapping(a.side, PAGES)
    target.unmap()
    elsewhere.fill(9)
    statuses = finish(a, 8)
    assert set(statuses) <= {"SUCCESS", "REM_OP_ERR", "WR_FLUSH_ERR"}
    received = finish(b, statuses.count("SUCCESS"))
    assert set(received) <= {"SUCCESS"}
    assert elsewhere.bytes() == make_pattern(9, elsewhere.length)


def test_memory_is_mapped_anew_under_writes(memory):
    """The region is over addresses: what is mapped there now takes the rest of the message."""
    (a, _b), source, target = memory
    for _ in range(8):
        write(a, source.sge(), target.remote())
    target.map_anew()
    assert set(finish(a, 8)) <= OVER
    assert made_of(target.bytes(), make_pattern(1, target.length), bytes(target.length))


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_region_is_deregistered_under_requests(memory, op):
    """When the call is back the device uses the memory no more."""
    (a, _b), near_region, far_region = memory
    for _ in range(8):
        (write if op == "write" else read)(a, near_region.sge(), far_region.remote())
    far_region.mr.close()
    far_region.fill(9)
    assert set(finish(a, 8)) <= OVER
    assert far_region.bytes() == make_pattern(9, far_region.length)
    if op == "read":
        assert made_of(near_region.bytes(), make_pattern(1, near_region.length), make_pattern(2, near_region.length))


def test_a_qp_is_destroyed_while_its_requests_fault(memory):
    (a, b), source, target = memory
    for _ in range(8):
        source.discard()
        write(a, source.sge(), target.remote())
    a.close()
    b.close()
    leftovers(a.side.cq, 2)  # rxe leaves completions of a QP that is gone: they say nothing of the next write
    source.fill(3)
    arrived("write", joined(a.side, b.side), source, target)
    assert target.bytes() == make_pattern(3, source.length)


def test_memory_moves_under_writes_from_it(memory):
    (a, _b), source, target = memory
    for _ in range(8):
        write(a, source.sge(), target.remote())
    moved = source.move()
    assert set(finish(a, 8)) <= {"SUCCESS", "LOC_PROT_ERR", "WR_FLUSH_ERR"}
    assert mem_alloc.read(moved, source.length) == make_pattern(1, source.length)
    assert made_of(target.bytes(), make_pattern(1, target.length), make_pattern(2, target.length))


def test_memory_moves_under_writes_to_it(memory):
    (a, _b), source, target = memory
    for _ in range(8):
        write(a, source.sge(), target.remote())
    moved = target.move()
    then = mem_alloc.read(moved, target.length)
    assert set(finish(a, 8)) <= OVER
    assert mem_alloc.read(moved, target.length) == then, "a write reached where the memory is now"
    assert made_of(then, make_pattern(1, target.length), make_pattern(2, target.length))


# -- rights, forks and files


def test_memory_loses_and_gets_rights_during_writes(memory):
    (a, _b), source, target = memory

    def step() -> None:
        target.protect(READ_ONLY)
        target.protect(READ_WRITE)

    with meanwhile(step):
        for _ in range(MESSAGES):
            write(a, source.sge(), target.remote())
        statuses = finish(a, MESSAGES)
    failed = [each for each in statuses if each != "SUCCESS"]
    assert failed in ([], ["REM_ACCESS_ERR"] + ["WR_FLUSH_ERR"] * (len(failed) - 1))
    assert made_of(target.bytes(), make_pattern(1, target.length), make_pattern(2, target.length))


def test_memory_that_becomes_read_only_keeps_its_bytes_from_then_on(memory):
    (a, _b), source, target = memory
    for _ in range(8):
        write(a, source.sge(), target.remote())
    target.protect(READ_ONLY)
    then = target.bytes()
    assert set(finish(a, 8)) <= OVER
    assert target.bytes() == then
    assert made_of(then, make_pattern(1, target.length), make_pattern(2, target.length))


@pytest.mark.parametrize("op", ["write", "read"])
def test_the_program_forks_while_requests_are_under_way(memory, op):
    (a, _b), near_region, far_region = memory
    for round in range(6):
        for _ in range(4):
            (write if op == "write" else read)(a, near_region.sge(), far_region.remote())
        child = os.fork()
        if not child:
            os._exit(0)
        if round % 2:
            os.waitpid(child, 0)
        successes(a.side.cq, 4)
        if not round % 2:
            os.waitpid(child, 0)
    assert near_region.bytes() == far_region.bytes() == make_pattern(1 if op == "write" else 2, far_region.length)


def test_what_a_child_has_of_a_page_is_of_one_moment(memory):
    """The device writes on in the parent: the child's copy never changes."""
    (a, _b), source, target = memory
    for _ in range(4):
        write(a, source.sge(), target.remote())
    said, say = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        first = target_bytes(target)
        os.read(told, 1)
        os.write(say, b"y" if target_bytes(target) == first else b"n")
        os._exit(0)
    source.fill(4)
    write(a, source.sge(), target.remote())
    successes(a.side.cq, 5)
    os.write(tell, b"!")
    assert os.read(said, 1) == b"y"
    os.waitpid(child, 0)
    for each in (said, say, told, tell):
        os.close(each)
    assert target.bytes() == make_pattern(4, target.length)


def target_bytes(region) -> bytes:
    return ctypes.string_at(region.address, region.length)


def test_a_file_shrinks_and_grows_during_writes_into_it(near, far):
    a, _b = joined(near, far)
    fd = file_of(make_pattern(2, PAGES * PAGE))
    source, target = near.region(PAGES), Mapping(far, PAGES, flags=mem_alloc.MAP_SHARED_, fd=fd)
    source.fill(1)

    def step() -> None:
        os.ftruncate(fd, PAGE)
        os.ftruncate(fd, PAGES * PAGE)

    with meanwhile(step):
        for _ in range(MESSAGES):
            write(a, source.sge(), target.remote())
        statuses = finish(a, MESSAGES)
    failed = [each for each in statuses if each != "SUCCESS"]
    assert failed in ([], ["REM_ACCESS_ERR"] + ["WR_FLUSH_ERR"] * (len(failed) - 1))
    size = PAGES * PAGE
    assert made_of(os.pread(fd, size, 0), make_pattern(1, size), make_pattern(2, size), bytes(size))
    os.close(fd)


def test_two_threads_use_one_region_while_a_third_discards_it(near, far):
    source, target = near.region(PAGES, odp=True), far.region(PAGES, odp=True)
    source.fill(1)
    half = PAGES // 2 * PAGE
    cqs = [near.new_cq() for _ in range(2)]
    pairs = [(near.qp(scq=cq), far.qp()) for cq in cqs]
    for a, b in pairs:
        join(a, b)
    failures: list[str] = []

    def traffic(number: int) -> None:
        a, offset = pairs[number][0], number * half
        for _ in range(MESSAGES):
            write(a, source.sge(offset, half), target.remote(offset))
            failures.extend(status(done) for done in completions(cqs[number], 1, 10) if done.status)

    threads = [threading.Thread(target=traffic, args=(number,)) for number in range(2)]
    with meanwhile(target.discard):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert failures == []
    assert made_of(target.bytes(), make_pattern(1, source.length), bytes(source.length))
    for number, (a, _b) in enumerate(pairs):
        write(a, source.sge(number * half, half), target.remote(number * half))
        successes(cqs[number], 1)
    assert target.bytes() == make_pattern(1, source.length)
