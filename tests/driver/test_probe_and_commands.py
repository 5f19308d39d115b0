"""Probe, the command queue, interrupts."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.abi.command import COMMAND_SLOTS, Command, Status
from nicemu.abi.rings import Doorbell, Eqn
from nicemu.driver import DriverError, attributes, cq
from nicemu.driver.cq import Cq
from nicemu.driver.irq import EventQueue
from nicemu.mm import Mutex
from nicemu.mm.lock_report import Kind
from nicemu.pyverbs.libibverbs_enums import ibv_device_cap_flags, ibv_odp_transport_cap_bits
from nicemu.timeline import Steps
from tests.driver.bench import Bench
from tests.driver.fake_device import COMMAND_NS, INTERRUPT_NS


def nop(bench: Bench) -> Steps[Any]:
    return bench.driver.devices[0].commands.execute(Command.NOP)


def test_probe_arms_every_event_queue_and_needs_no_command(bench: Bench) -> None:
    vectors = [int(Eqn.COMPLETION) + n for n in range(bench.device.profile.num_comp_vectors)]
    assert sorted(bench.device.eqs) == [1, 2, 3, *vectors]
    assert all(eq.armed for eq in bench.device.eqs.values())
    assert bench.device.log == []


def test_no_event_queue_can_overflow(bench: Bench) -> None:
    profile, eqs = bench.device.profile, bench.device.eqs
    assert eqs[Eqn.COMMAND].slots >= COMMAND_SLOTS
    assert eqs[Eqn.PAGE_FAULT].slots >= profile.page_fault_eq_depth
    assert eqs[Eqn.COMPLETION].slots >= profile.max_cq


def test_a_command_returns_when_its_interrupt_was_handled(bench: Bench) -> None:
    bench.device._nop = lambda p, mailbox: None  # type: ignore[attr-defined]
    bench.call(nop(bench))
    assert bench.now == COMMAND_NS + INTERRUPT_NS + bench.costs.irq_ns


def test_a_bad_status_is_the_errno_of_the_kernel(bench: Bench) -> None:
    for status, number in ((Status.BAD_PARAM, errno.EINVAL), (Status.NO_MEMORY, errno.ENOMEM)):
        bench.device.refuse[Command.NOP] = status
        with pytest.raises(DriverError) as caught:
            bench.call(nop(bench))
        assert caught.value.errno == number
        assert status.name in str(caught.value)


def test_more_commands_than_slots_queue_and_all_complete(bench: Bench) -> None:
    bench.device._nop = lambda p, mailbox: None  # type: ignore[attr-defined]
    threads = [bench.spawn(nop(bench)) for _ in range(3 * COMMAND_SLOTS + 5)]
    bench.run()
    assert all(thread.finished and thread.error is None for thread in threads)
    rung = [number for bank, number in bench.device.doorbells if bank == Doorbell.COMMAND]
    assert len(rung) == len(threads)
    assert set(rung) == set(range(COMMAND_SLOTS))


def test_commands_one_after_another_use_one_mailbox(bench: Bench) -> None:
    used = set()
    bench.device._nop = lambda p, mailbox: used.add(mailbox)  # type: ignore[attr-defined]
    for _ in range(COMMAND_SLOTS + 1):
        bench.call(nop(bench))
    assert len(used) == 1
    for _ in range(COMMAND_SLOTS):
        bench.spawn(nop(bench))
    bench.run()
    assert len(used) == COMMAND_SLOTS


def test_event_queues_wrap(bench: Bench) -> None:
    queue: EventQueue = bench.driver.devices[0].eqs[Eqn.COMMAND]
    bench.device._nop = lambda p, mailbox: None  # type: ignore[attr-defined]
    for _ in range(3 * queue.slots + 1):
        bench.call(nop(bench))
    assert queue.consumed == 3 * queue.slots + 1


def test_an_event_between_drain_and_arm_is_not_lost(bench: Bench) -> None:
    """The handler re-arms after it has drained; the device then raises the next interrupt."""
    bench.device._nop = lambda p, mailbox: None  # type: ignore[attr-defined]
    first = bench.spawn(nop(bench))
    bench.timeline.advance(lambda: first.finished)
    second = bench.spawn(nop(bench))
    bench.run()
    assert second.finished


def test_attributes_are_the_profiles(bench: Bench) -> None:
    device = bench.driver.devices[0]
    values = attributes.device_attributes(device)
    assert values["max_qp"] == bench.device.profile.max_qp
    assert values["node_guid"] == bench.device.guid
    port = attributes.port_attributes(device, 1)
    assert port["state"] == 4 and port["link_layer"] == 2 and port["active_mtu"] == 5
    assert attributes.pkey(device, 1, 0) == 0xFFFF
    assert attributes.gid(device, 1, 7) is None
    for call in (lambda: attributes.port_attributes(device, 2), lambda: attributes.gid(device, 1, 8),
                 lambda: attributes.pkey(device, 1, 1)):  # fmt: skip
        with pytest.raises(DriverError) as caught:
            call()
        assert caught.value.errno == errno.EINVAL


# CQs


@pytest.fixture
def queue(bench: Bench) -> Cq:
    made: Cq = bench.call(cq.create(bench.open(), 10, 0, None))
    return made


def test_a_resize_moves_the_cq_into_another_ring(bench: Bench, queue: Cq) -> None:
    old = queue.ring.address
    bench.call(cq.resize(queue, 40))
    assert (queue.cqe, queue.slots) == (63, 64) and queue.ring.address != old
    assert bench.device.log[-1] == (Command.RESIZE_CQ, (queue.number, queue.ring.address, 64, 40) + (0,) * 10)


def test_a_refused_resize_changes_nothing(bench: Bench, queue: Cq) -> None:
    before = queue.cqe, queue.slots, queue.ring
    bench.device.refuse[Command.RESIZE_CQ] = Status.BAD_PARAM
    with pytest.raises(DriverError) as caught:
        bench.call(cq.resize(queue, 1))
    assert caught.value.errno == errno.EINVAL and (queue.cqe, queue.slots, queue.ring) == before


@pytest.mark.parametrize("count, period", [(65536, 0), (0, 4096), (-1, 0), (0, -1)])
def test_moderation_beyond_the_device_is_refused(bench: Bench, queue: Cq, count: int, period: int) -> None:
    with pytest.raises(DriverError) as caught:
        bench.call(cq.moderate(queue, count, period))
    assert caught.value.errno == errno.EINVAL


def test_a_dead_device_fails_with_eio(bench: Bench) -> None:
    bench.device.refuse[Command.CREATE_CQ] = Status.INTERNAL_ERROR
    with pytest.raises(DriverError) as caught:
        bench.call(cq.create(bench.open(), 10, 0, None))
    assert caught.value.errno == errno.EIO


def test_capability_flags_are_those_of_the_verbs_enum(bench: Bench) -> None:
    values = attributes.device_attributes(bench.driver.devices[0])
    flags, extended = values["device_cap_flags"], values["device_cap_flags_ex"]
    assert isinstance(flags, int) and isinstance(extended, int)
    names = ["SRQ_RESIZE", "XRC", "RC_RNR_NAK_GEN", "MEM_MGT_EXTENSIONS", "UD_AV_PORT_ENFORCE", "CURR_QP_STATE_MOD"]
    assert all(flags & ibv_device_cap_flags[f"IBV_DEVICE_{name}"] for name in names)
    assert flags < 1 << 32 and extended & 0xFFFFFFFF == flags
    flush_and_atomic_write = 1 << 6 | 1 << 7 | 1 << 8
    assert extended >> 32 == flush_and_atomic_write | 1 << 2 | 1 << 4, "and RAW_SCATTER_FCS, PCI_WRITE_END_PADDING"


def test_on_demand_memory_works_with_rc_xrc_and_ud(bench: Bench) -> None:
    caps, bits = attributes.odp_caps(bench.driver.devices[0]), ibv_odp_transport_cap_bits
    everything = sum(bits)
    assert caps["odp_rc_caps"] == everything
    assert caps["odp_xrc_caps"] == everything - bits.IBV_ODP_SUPPORT_RECV
    assert caps["odp_ud_caps"] == bits.IBV_ODP_SUPPORT_SEND | bits.IBV_ODP_SUPPORT_SRQ_RECV
    assert "odp_uc_caps" not in caps


def test_a_handler_runs_in_interrupt_context(bench: Bench) -> None:
    """A lock that sleeps, taken in an interrupt handler, is reported as in any atomic context."""
    mutex = Mutex(bench.scheduler, "umem_mutex")

    def handler() -> Steps[None]:
        yield from mutex.acquire(bench.driver.thread)
        mutex.release(bench.driver.thread)

    bench.driver.devices[0].interrupt = lambda vector: handler()  # type: ignore[method-assign]
    bench.driver.deliver([(0, 1)])
    bench.run()
    (report,) = bench.mm.host.lockdep.reports.found.values()
    assert (report.kind, report.lock, report.thread) == (Kind.ATOMIC_SLEEP, "hardirq", "irq/nicemu0-1")
