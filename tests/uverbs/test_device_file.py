"""Open devices: descriptors of one context, who keeps it alive, and what is imported by handle."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from nicemu.abi.verbs import Access
from nicemu.uverbs import import_messages as i
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench
from tests.uverbs.calls import fails


@pytest.fixture
def fd(endpoint: Endpoint, context: int) -> int:
    number: int = endpoint.execute(i.CommandFd(context))
    return number


@pytest.fixture
def duplicate(fd: int) -> Iterator[int]:
    copy = os.dup(fd)
    yield copy
    if _is_open(copy):
        os.close(copy)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_duplicate_is_the_same_context(endpoint: Endpoint, context: int, duplicate: int) -> None:
    assert endpoint.execute(i.ImportDevice(duplicate)) == i.DeviceResponse(context, "nicemu0")


def test_what_is_no_open_device_cannot_be_imported(endpoint: Endpoint, context: int) -> None:
    other, end = os.pipe()
    for number in (other, end, -1, 10**6, 1 << 40):
        assert fails(endpoint, i.ImportDevice(number)) == errno.EINVAL
    os.close(other)
    os.close(end)


def test_a_closed_device_cannot_be_imported(endpoint: Endpoint, context: int, fd: int) -> None:
    endpoint.execute(m.CloseDevice(context))
    assert not _is_open(fd)
    assert fails(endpoint, i.ImportDevice(fd)) == errno.EINVAL


@pytest.mark.parametrize("first", ["opener", "importer"])
def test_objects_live_until_the_last_context_is_closed(
    endpoint: Endpoint, context: int, duplicate: int, bench: Bench, first: str
) -> None:
    endpoint.execute(i.ImportDevice(duplicate))
    pd = endpoint.execute(m.AllocPd(context))
    closes = [m.CloseDevice(context), m.CloseDevice(context, duplicate)]
    if first == "importer":
        closes.reverse()
    endpoint.execute(closes[0])
    assert bench.driver.pds.get(pd) and endpoint.execute(m.QueryDevice(context))
    endpoint.execute(closes[1])
    assert not len(bench.driver.pds) and not _is_open(duplicate)
    assert fails(endpoint, closes[0]) == errno.EINVAL


def test_a_descriptor_alone_keeps_the_device_open(
    endpoint: Endpoint, context: int, duplicate: int, bench: Bench
) -> None:
    endpoint.execute(m.AllocPd(context))
    endpoint.execute(m.CloseDevice(context))
    assert len(bench.driver.pds) == 1
    assert endpoint.execute(i.ImportDevice(duplicate)).handle == context
    endpoint.execute(m.CloseDevice(context, duplicate))
    assert not len(bench.driver.pds)


def test_the_device_goes_after_the_program_closed_the_last_descriptor(
    endpoint: Endpoint, context: int, duplicate: int, bench: Bench
) -> None:
    endpoint.execute(m.AllocPd(context))
    endpoint.execute(m.CloseDevice(context))
    assert fails(endpoint, m.CloseDevice(context)) == errno.EBADF
    os.close(duplicate)
    endpoint.execute(m.ListDevices())
    assert not len(bench.driver.pds) and not len(bench.driver.contexts)


def test_closing_never_closes_what_took_the_number(endpoint: Endpoint, context: int, fd: int) -> None:
    os.close(fd)
    stranger = os.open(os.devnull, os.O_RDONLY)
    if stranger != fd:
        os.dup2(stranger, fd)
    endpoint.execute(m.CloseDevice(context))
    assert _is_open(fd)
    for number in {fd, stranger}:
        os.close(number)


def test_a_child_keeps_the_device_open(endpoint: Endpoint, context: int, bench: Bench) -> None:
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    endpoint.execute(m.CloseDevice(context))
    assert len(bench.driver.contexts) == 1
    os.close(go)
    os.waitpid(child, 0)
    endpoint.execute(m.ListDevices())
    assert not len(bench.driver.contexts)


def test_the_end_of_the_run_gives_the_descriptors_back(endpoint: Endpoint, context: int, fd: int) -> None:
    endpoint.dispatcher.close_files()
    assert not _is_open(fd)


# Objects by handle


def test_objects_of_the_context_are_imported(endpoint: Endpoint, context: int) -> None:
    pd, dm = endpoint.execute(m.AllocPd(context)), endpoint.execute(mem.AllocDm(context, 64))
    mr = endpoint.execute(mem.RegMr(pd, 0x100000, 8192, Access.LOCAL_WRITE, 0x100000))
    assert endpoint.execute(i.ImportPd(context, pd)) is None
    assert endpoint.execute(i.ImportDm(context, dm)) is None
    assert endpoint.execute(i.ImportMr(pd, mr.handle)) == i.ImportedMr(mr.lkey, mr.rkey, 8192)


def test_handles_of_nothing_and_of_other_contexts(endpoint: Endpoint, context: int) -> None:
    other = endpoint.execute(m.OpenDevice("nicemu0"))
    pd, dm = endpoint.execute(m.AllocPd(other)), endpoint.execute(mem.AllocDm(other, 64))
    mr = endpoint.execute(mem.RegMr(pd, 0x100000, 8192, Access.LOCAL_WRITE, 0x100000))
    own = endpoint.execute(m.AllocPd(context))
    for command in (
        i.ImportPd(context, pd), i.ImportDm(context, dm), i.ImportMr(own, mr.handle),
        i.ImportPd(context, 999), i.ImportDm(context, 999), i.ImportMr(own, 999),
    ):  # fmt: skip
        assert fails(endpoint, command) == errno.ENOENT
    assert fails(endpoint, i.ImportPd(999, pd)) == errno.EINVAL
