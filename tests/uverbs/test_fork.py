"""Forked children: commands go to the parent, the rest is refused, and nothing of the parent's ends with a child."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nicemu.abi.rings import Doorbell
from nicemu.abi.verbs import Access
from nicemu.uverbs import import_messages as i
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import session
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench
from tests.uverbs.calls import FakeProcess, fails

CAPS = m.Capabilities(4, 4, 1, 1, 0)


@pytest.fixture(autouse=True)
def own_session(endpoint: Endpoint) -> Iterator[None]:
    saved = session._config, session._lab, session._endpoint
    session._config = None
    session.install(endpoint, SimpleNamespace(endpoint=endpoint))
    yield
    endpoint.children.stop()
    session._config, session._lab, session._endpoint = saved


def fork(do: Callable[[], Any]) -> int:
    """Run ``do`` in a child; its pid. Status 0: it returned (1: an exception, which it prints)."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        do()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(do: Callable[[], Any]) -> None:
    assert wait(fork(do)) == 0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread or process of ours."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_fork_runs_in_the_parents_model(endpoint: Endpoint, bench: Bench) -> None:
    before = bench.now
    in_child(lambda: None)
    assert endpoint.process.calls == [("fork",)] and bench.now - before == 100 and not endpoint.forked


def test_a_program_that_does_not_fork_has_no_thread_and_no_socket(endpoint: Endpoint) -> None:
    assert not endpoint.children.ends and endpoint.parent is None


def test_a_child_allocates_on_the_parents_context(endpoint: Endpoint, context: int, bench: Bench) -> None:
    def child() -> None:
        dm = endpoint.execute(mem.AllocDm(context, 64))
        assert endpoint.execute(mem.DmCopy(dm, 0, 8, b"of child")) == b"of child"
        assert endpoint.execute(m.QueryDevice(context)).values["max_sge"] == 32
        assert [info.name for info in endpoint.execute(m.ListDevices())] == ["nicemu0"]

    in_child(child)
    (block,) = bench.driver.dms
    assert endpoint.execute(mem.DmCopy(block.handle, 0, 8)) == b"of child"


def test_the_parents_refusals_come_as_they_are(endpoint: Endpoint, context: int) -> None:
    def child() -> None:
        with pytest.raises(m.VerbsError, match="device memory") as refused:
            endpoint.execute(mem.AllocDm(context, 1 << 40))
        assert refused.value.errno == errno.ENOMEM
        assert fails(endpoint, m.DeallocPd(99)) == errno.EINVAL

    in_child(child)


def test_many_children_at_once(endpoint: Endpoint, context: int, bench: Bench) -> None:
    children = [fork(lambda: [endpoint.execute(mem.AllocDm(context, 64)) for _ in range(5)]) for _ in range(5)]
    assert [wait(child) for child in children] == [0] * 5
    assert len(bench.driver.dms) == 25
    until(lambda: not endpoint.children.ends)


def test_parent_and_child_take_turns(endpoint: Endpoint, context: int, bench: Bench) -> None:
    child = fork(lambda: [endpoint.execute(m.AllocPd(context)) for _ in range(200)])
    for _ in range(200):
        endpoint.execute(m.AllocPd(context))
    assert wait(child) == 0 and len(bench.driver.pds) == 400


def test_threads_of_a_child_share_its_way(endpoint: Endpoint, context: int, bench: Bench) -> None:
    def child() -> None:
        threads = [threading.Thread(target=lambda: endpoint.execute(m.AllocPd(context))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_child(child)
    assert len(bench.driver.pds) == 8


@pytest.mark.parametrize("how", ["exit", "killed"])
def test_what_a_child_made_outlives_it(endpoint: Endpoint, context: int, bench: Bench, how: str) -> None:
    def child() -> None:
        endpoint.execute(m.AllocPd(context))
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(child)) == (-signal.SIGKILL if how == "killed" else 0)
    assert len(bench.driver.pds) == 1 and endpoint.execute(m.AllocPd(context))
    endpoint.execute(m.CloseDevice(context))
    assert not len(bench.driver.pds)


# What a child cannot do


def test_rings_and_memory_are_the_parents(endpoint: Endpoint, context: int, bench: Bench) -> None:
    pd = endpoint.execute(m.AllocPd(context))
    cq = endpoint.execute(m.CreateCq(context, 10))

    def child() -> None:
        for command in (
            mem.RegMr(pd, 0x100000, 4096, Access.LOCAL_WRITE, 0), m.CreateCq(context, 10), m.ResizeCq(cq.handle, 20),
            m.CreateQp(pd, 2, cq.handle, cq.handle, CAPS), m.OpenDevice("nicemu0"), m.GetAsyncEvent(context),
            m.CreateCompChannel(context), mem.RegDmabufMr(pd, 0, 4096, 0, 5, 1),
        ):  # fmt: skip
            with pytest.raises(m.VerbsError, match=f"{type(command).__name__}: a forked child cannot") as refused:
                endpoint.execute(command)
            assert refused.value.errno == errno.EOPNOTSUPP
        for call in (
            lambda: endpoint.ring_doorbell(0, Doorbell.SEND, 5, 1), lambda: endpoint.poll(1, 0, lambda: False),
            lambda: endpoint.settle(lambda: False, 1000), lambda: endpoint.acknowledge("completion", cq.handle),
            lambda: endpoint.process.mlock(0, 1), lambda: endpoint.process.gem_create(4096),
        ):  # fmt: skip
            with pytest.raises(m.VerbsError) as refused:
                call()
            assert refused.value.errno == errno.EOPNOTSUPP

    before = bench.now
    in_child(child)
    assert bench.now - before == 100, "nothing of it reached the parent"


def test_a_child_that_asks_anyway_is_refused(endpoint: Endpoint, context: int) -> None:
    """The parent does not rely on the child's own check."""

    def child() -> None:
        from nicemu.uverbs.encoding import encode

        assert endpoint.parent is not None
        for request in (encode(m.OpenDevice("nicemu0")), encode(7), b"{", encode(m.AllocPd("x"))):  # type: ignore[arg-type]
            number, text = endpoint.parent._ask(request)
            assert number and text
        assert endpoint.execute(m.AllocPd(context))

    in_child(child)


def test_a_childs_memory_is_its_own(endpoint: Endpoint) -> None:
    shared = mmap.mmap(-1, 4096)

    def child() -> None:
        process = endpoint.process
        address = process.posix_memalign(5000, 4096)
        process.write(address + 4000, b"across pages" * 10)
        assert process.read(address + 4000, 12) == b"across pages" and process.read(address, 8) == bytes(8)
        process.madvise(address, 8192, 4)
        assert process.read(address + 4000, 12) == bytes(12)
        process.free(address)
        for call in (lambda: process.read(address, 1), lambda: process.write(address, b"x")):
            with pytest.raises(OSError, match="Bad address"):
                call()
        with pytest.raises(OSError, match="Invalid"):
            process.free(address)
        at = process.mmap(4096)
        process.munmap(at, 4096)
        shared[0] = 1

    in_child(child)
    assert shared[0] == 1


# Descriptors


def test_a_child_closes_its_own_descriptor_only(endpoint: Endpoint, context: int, bench: Bench) -> None:
    fd = endpoint.execute(i.CommandFd(context))

    def child() -> None:
        assert endpoint.execute(i.CommandFd(context)) == fd
        copy = os.dup(fd)
        assert endpoint.execute(i.ImportDevice(copy)) == i.DeviceResponse(context, "nicemu0")
        endpoint.execute(m.CloseDevice(context, copy))
        endpoint.execute(m.CloseDevice(context))
        with pytest.raises(OSError):
            os.fstat(fd)
        assert fails(endpoint, i.ImportDevice(fd)) == errno.EINVAL

    in_child(child)
    os.fstat(fd)
    assert endpoint.execute(m.AllocPd(context))


def test_the_parent_closes_while_a_child_goes_on(endpoint: Endpoint, context: int, bench: Bench) -> None:
    """As on Linux: the child has the device open."""
    ready, go = os.pipe()

    def child() -> None:
        os.read(ready, 1)
        endpoint.execute(m.AllocPd(context))

    pid = fork(child)
    endpoint.execute(m.CloseDevice(context))
    assert len(bench.driver.contexts) == 1
    os.write(go, b".")
    assert wait(pid) == 0 and len(bench.driver.pds) == 1
    endpoint.execute(m.ListDevices())
    assert not len(bench.driver.contexts) and not len(bench.driver.pds)
    for end in (ready, go):
        os.close(end)


# Who is there


def test_children_of_a_child_find_nobody(endpoint: Endpoint, context: int) -> None:
    def child() -> None:
        def grandchild() -> None:
            assert fails(endpoint, m.AllocPd(context)) == errno.ENODEV
            with pytest.raises(m.VerbsError) as refused:
                endpoint.ring_doorbell(0, Doorbell.SEND, 5, 1)
            assert refused.value.errno == errno.ENODEV

        in_child(grandchild)
        assert endpoint.execute(m.AllocPd(context))

    in_child(child)


def test_the_parent_is_killed(endpoint: Endpoint, context: int) -> None:
    """A process in between is the parent, so that it can be killed; another child of it must not keep the way open."""
    told, tell = os.pipe()

    def parent() -> None:
        device = Bench()
        own = Endpoint(device.timeline, device.driver, FakeProcess(device))
        session.install(own, SimpleNamespace(endpoint=own))
        opened = own.execute(m.OpenDevice("nicemu0"))

        def child() -> None:
            assert own.execute(m.AllocPd(opened))
            os.kill(os.getppid(), signal.SIGKILL)
            until(lambda: os.getppid() != middle)
            assert fails(own, m.AllocPd(opened)) == errno.ENODEV
            assert fails(own, m.CreateCq(opened, 10)) == errno.ENODEV
            assert fails(own, m.AllocPd(opened)) == errno.ENODEV
            os.write(tell, b"k")

        middle = os.getpid()
        fork(lambda: until(lambda: os.getppid() != middle))
        fork(child)
        until(lambda: False)

    assert wait(fork(parent)) == -signal.SIGKILL
    assert os.read(told, 1) == b"k"
    for end in (told, tell):
        os.close(end)


def test_the_run_is_over_while_a_child_lives(endpoint: Endpoint, context: int) -> None:
    ready, go = os.pipe()

    def child() -> None:
        assert endpoint.execute(m.AllocPd(context))
        os.read(ready, 1)
        assert fails(endpoint, m.AllocPd(context)) == errno.ENODEV

    pid = fork(child)
    until(lambda: len(endpoint.driver.pds) == 1)
    endpoint.children.stop()
    os.write(go, b".")
    assert wait(pid) == 0
    for end in (ready, go):
        os.close(end)
