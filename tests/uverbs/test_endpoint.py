"""Commands, event channels, waiting, fork: through the endpoint, on a fake device."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from nicemu.abi.rings import Doorbell, EqeType, Eqn
from nicemu.abi.verbs import Access, AsyncEvent, QpAttrMask, QpState
from nicemu.timeline import Quiescent, Steps
from nicemu.uverbs import import_messages as imports
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import raw_messages as raw
from nicemu.uverbs import session
from nicemu.uverbs import srq_messages as s
from nicemu.uverbs.dispatch import HANDLERS
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench
from tests.uverbs.calls import fails

CAPS = m.Capabilities(4, 4, 1, 1, 0)


def test_every_command_has_a_handler() -> None:
    answers = {"VerbsError", "DeviceInfo", "DeviceAttributes", "PortAttributes", "GidEntry", "MrResponse", "CqResponse",
               "Capabilities", "QpResponse", "AddressVector", "QpAttributes", "AsyncEventResponse", "AhResponse",
               "SrqResponse", "SrqAttributes", "MwResponse", "DeviceResponse", "ImportedMr",
               "TagOperations", "WqResponse"}  # fmt: skip
    commands = {
        name for module in (m, mem, s, raw, imports) for name, thing in vars(module).items()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and name not in answers
    }  # fmt: skip
    assert commands == {kind.__name__ for kind in HANDLERS}


def test_devices_and_their_attributes(endpoint: Endpoint, context: int) -> None:
    (device,) = endpoint.execute(m.ListDevices())
    assert (device.name, device.index, device.node_type) == ("nicemu0", 0, 1) and device.guid
    assert endpoint.device_index(context) == 0
    attributes = endpoint.execute(m.QueryDevice(context))
    assert attributes.values["max_sge"] == 32 and attributes.odp_general_caps == 3 and attributes.odp_rc_caps == 255
    assert endpoint.execute(m.QueryPort(context, 1)).values["state"] == 4
    assert endpoint.execute(m.QueryGid(context, 1, 0)).type == 1
    assert endpoint.execute(m.QueryGid(context, 1, 7)) is None
    assert endpoint.execute(m.QueryPkey(context, 1, 0)) == 0xFFFF
    assert fails(endpoint, m.OpenDevice("mlx5_0")) == errno.ENODEV
    assert fails(endpoint, m.QueryPort(context, 2)) == errno.EINVAL
    assert fails(endpoint, m.QueryPort(context + 1, 1)) == errno.EINVAL


@pytest.mark.parametrize(
    ("kind", "command"),
    [("qp", m.DestroyQp(9)), ("cq", m.DestroyCq(9)), ("completion", m.DestroyCq(9)), ("srq", s.DestroySrq(9)),
     ("wq", raw.DestroyWq(9))],
)  # fmt: skip
def test_an_object_stays_until_its_events_are_acknowledged(endpoint: Endpoint, kind: str, command: object) -> None:
    endpoint.unacknowledged[kind, 9] = 1
    with pytest.raises(Quiescent, match="not acknowledged"):
        endpoint.execute(command)
    endpoint.acknowledge(kind, 9)
    assert fails(endpoint, command) == errno.EINVAL, "no object has that handle"


def test_a_call_costs_a_system_call(endpoint: Endpoint, context: int, bench: Bench) -> None:
    before = bench.now
    endpoint.execute(m.AllocPd(context))
    assert bench.now - before == bench.costs.syscall_ns


def test_mr_and_qp_through_messages(endpoint: Endpoint, context: int) -> None:
    pd = endpoint.execute(m.AllocPd(context))
    mr = endpoint.execute(mem.RegMr(pd, 0x100000, 8192, Access.LOCAL_WRITE, 0x100000))
    assert mr.lkey == mr.rkey and mr.lkey >> 8
    cq = endpoint.execute(m.CreateCq(context, 10))
    assert cq.cqe >= 10 and len(cq.ring) == cq.slots * 64 and len(cq.record) == 16
    qp = endpoint.execute(m.CreateQp(pd, 2, cq.handle, cq.handle, CAPS))
    attributes = m.QpAttributes(qp_state=QpState.INIT, port_num=1)
    mask = QpAttrMask.STATE | QpAttrMask.PKEY_INDEX | QpAttrMask.PORT | QpAttrMask.ACCESS_FLAGS
    endpoint.execute(m.ModifyQp(qp.handle, attributes, mask))
    read = endpoint.execute(m.QueryQp(qp.handle))
    assert (read.qp_state, read.port_num, read.caps) == (QpState.INIT, 1, CAPS)
    assert fails(endpoint, m.DestroyCq(cq.handle)) == errno.EBUSY
    assert fails(endpoint, m.DeallocPd(pd)) == errno.EBUSY
    for command in (m.DestroyQp(qp.handle), m.DestroyCq(cq.handle), mem.DeregMr(mr.handle), m.DeallocPd(pd)):
        assert endpoint.execute(command) is None
        assert fails(endpoint, command) == errno.EINVAL
    endpoint.execute(m.CloseDevice(context))
    assert fails(endpoint, m.CloseDevice(context)) == errno.EINVAL


def test_prefetch(endpoint: Endpoint, context: int, bench: Bench) -> None:
    pd, other = endpoint.execute(m.AllocPd(context)), endpoint.execute(m.AllocPd(context))
    access = Access.LOCAL_WRITE | Access.ON_DEMAND
    key = endpoint.execute(mem.RegMr(pd, 0x100000, 4 * 4096, access, 0x100000)).lkey
    endpoint.execute(mem.AdviseMr(pd, 1, 1, ((0x100000, 8192, key),)))
    assert sorted(bench.device.mkeys[key >> 8].mtt) == [0, 1]
    endpoint.execute(mem.AdviseMr(pd, 0, 0, ((0x102000, 4096, key),)))
    bench.run()
    assert sorted(bench.device.mkeys[key >> 8].mtt) == [0, 1, 2]
    counters = bench.driver.mr_counters[1]
    assert (counters.page_prefetch, counters.page_faults) == (3, 0)
    for command, number in (
        (mem.AdviseMr(pd, 3, 0, ((0x100000, 1, key),)), errno.EOPNOTSUPP),
        (mem.AdviseMr(pd, 0, 0, ((0x100000, 1, key + 1),)), errno.ENOENT),
        (mem.AdviseMr(other, 0, 0, ((0x100000, 1, key),)), errno.EPERM),
        (mem.AdviseMr(pd, 0, 0, ((0x100000, 5 * 4096, key),)), errno.EFAULT),
    ):
        assert fails(endpoint, command) == number


# Completion channels


@pytest.fixture
def channel(endpoint: Endpoint, context: int) -> tuple[int, int]:
    handle, fd = endpoint.execute(m.CreateCompChannel(context))
    return handle, fd


def completion(bench: Bench, cqn: int, after: int = 1000) -> None:
    """The device writes a completion event in a while."""
    bench.engine.after(after, lambda: bench.device.post(Eqn.COMPLETION, EqeType.COMP, 0, (cqn, 0, 0, 0, 0, 0)))


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_waiting_for_a_completion_event_runs_the_timeline(
    endpoint: Endpoint, context: int, channel: tuple[int, int], bench: Bench
) -> None:
    handle, fd = channel
    cq = endpoint.execute(m.CreateCq(context, 10, handle))
    completion(bench, cq.number)
    assert not readable(fd)
    assert endpoint.execute(m.GetCqEvent(handle)) == cq.handle
    assert not readable(fd)


def test_the_fd_is_readable_while_events_wait(
    endpoint: Endpoint, context: int, channel: tuple[int, int], bench: Bench
) -> None:
    handle, fd = channel
    cqs = [endpoint.execute(m.CreateCq(context, 10, handle)) for _ in range(2)]
    for cq in (*cqs, cqs[0]):
        completion(bench, cq.number)
    bench.run()
    assert endpoint.event_fds() >= {fd}
    got = []
    for _ in range(3):
        assert readable(fd)
        got.append(endpoint.execute(m.GetCqEvent(handle)))
    assert got == [cqs[0].handle, cqs[1].handle, cqs[0].handle] and not readable(fd)


def test_more_events_than_the_pipe_holds(endpoint: Endpoint, channel: tuple[int, int]) -> None:
    handle, fd = channel
    file = endpoint.dispatcher.channels.get(handle)
    for event in range(70_000):
        file.put(event)
    assert [file.take() for _ in range(70_000)] == list(range(70_000)) and not readable(fd)


def test_a_nonblocking_fd_gives_eagain_and_a_blocking_one_says_who_waits(
    endpoint: Endpoint, channel: tuple[int, int], bench: Bench
) -> None:
    handle, fd = channel
    bench.timeline._others_may_act = lambda: False  # type: ignore[method-assign]
    with pytest.raises(Quiescent):
        endpoint.execute(m.GetCqEvent(handle))
    os.set_blocking(fd, False)
    assert fails(endpoint, m.GetCqEvent(handle)) == errno.EAGAIN


def test_channel_lifetimes(endpoint: Endpoint, context: int, channel: tuple[int, int], bench: Bench) -> None:
    handle, fd = channel
    cq = endpoint.execute(m.CreateCq(context, 10, handle))
    assert fails(endpoint, m.DestroyCompChannel(handle)) == errno.EBUSY
    completion(bench, cq.number)
    bench.run()
    endpoint.execute(m.DestroyCq(cq.handle))
    assert not readable(fd), "events of a destroyed CQ are gone"
    endpoint.execute(m.DestroyCompChannel(handle))
    with pytest.raises(OSError):
        os.fstat(fd)


def test_closing_the_device_closes_its_channels(endpoint: Endpoint, context: int, channel: tuple[int, int]) -> None:
    endpoint.execute(m.CreateCq(context, 10, channel[0]))
    endpoint.execute(m.CloseDevice(context))
    with pytest.raises(OSError):
        os.fstat(channel[1])
    assert endpoint.event_fds() == set()


def test_async_events_go_to_the_context_of_the_object(endpoint: Endpoint, context: int, bench: Bench) -> None:
    other = endpoint.execute(m.OpenDevice("nicemu0"))
    pd, cq = endpoint.execute(m.AllocPd(context)), endpoint.execute(m.CreateCq(context, 10))
    qp = endpoint.execute(m.CreateQp(pd, 2, cq.handle, cq.handle, CAPS))
    post = bench.device.post
    post(Eqn.ASYNC, EqeType.ASYNC, AsyncEvent.QP_ACCESS_ERR, (qp.number, 0, 0, 0, 0, 0))
    post(Eqn.ASYNC, EqeType.ASYNC, AsyncEvent.CQ_ERR, (cq.number, 0, 0, 0, 0, 0))
    post(Eqn.ASYNC, EqeType.ASYNC, AsyncEvent.PORT_ERR, (1, 0, 0, 0, 0, 0))
    events = [endpoint.execute(m.GetAsyncEvent(context)) for _ in range(3)]
    assert [(e.event_type, e.object_kind, e.handle) for e in events] == [
        (AsyncEvent.QP_ACCESS_ERR, "qp", qp.handle), (AsyncEvent.CQ_ERR, "cq", cq.handle),
        (AsyncEvent.PORT_ERR, "port", 1),
    ]  # fmt: skip
    assert endpoint.execute(m.GetAsyncEvent(other)).event_type == AsyncEvent.PORT_ERR


# Doorbells, polling, system calls


def test_doorbells_go_to_the_device(endpoint: Endpoint, bench: Bench) -> None:
    endpoint.ring_doorbell(0, Doorbell.SEND, 5, 1)
    assert bench.device.doorbells[-1] == (Doorbell.SEND, 5)


def test_polling_passes_time_up_to_the_quantum(endpoint: Endpoint, bench: Bench) -> None:
    bench.engine.after(1 << 40, lambda: None)
    before = bench.now
    assert endpoint.poll(3, 0, lambda: False) is False
    assert bench.now - before == 10_000_000
    assert bench.device.watched == [(3, True), (3, False)]
    assert endpoint.poll(3, 0, lambda: True) is True


def test_system_calls_run_on_the_timeline(endpoint: Endpoint, bench: Bench) -> None:
    before = bench.now
    assert endpoint.process.munmap(0x1000, 4096) == 0
    assert endpoint.process.calls == [("munmap", 0x1000, 4096)] and bench.now - before == 100


def test_a_call_from_within_a_call_is_put_off(endpoint: Endpoint, context: int, bench: Bench) -> None:
    """As when a garbage collection inside the engine finalises a PD."""
    pd = endpoint.execute(m.AllocPd(context))
    seen = []

    def munmap(address: int, length: int) -> Steps[int]:
        seen.append(endpoint.execute(m.DeallocPd(pd)))
        seen.append(endpoint.execute(m.DeallocPd(pd)))  # fails later, unheard
        yield 100
        assert bench.driver.pds.get(pd)
        return 7

    endpoint.process.model.munmap = munmap
    assert endpoint.process.munmap(0, 0) == 7
    assert seen == [None, None] and len(bench.driver.pds) == 0


# Session


@pytest.fixture
def own_session() -> Iterator[None]:
    saved = session._config, session._lab, session._endpoint
    session._config = session._lab = session._endpoint = None
    yield
    session._config, session._lab, session._endpoint = saved


@pytest.mark.usefixtures("own_session")
def test_reset_closes_the_lab() -> None:
    closed = []
    session.install(SimpleNamespace(forked=False), SimpleNamespace(close=lambda: closed.append(1)))  # type: ignore[arg-type]
    assert session.current() is not None
    session.reset()
    assert closed == [1] and session.current() is None
    session.configure("anything")
    assert session._config == "anything"
