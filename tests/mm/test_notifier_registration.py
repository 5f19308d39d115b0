"""Coming and going of subscribers: register, unregister, get, put, release (odp.md section 2)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm import NotifierSubscriber
from nicemu.mm.lock_report import Kind
from nicemu.mm.locks import RwSemaphore
from nicemu.mm.notifier import mmu_notifier_synchronize
from nicemu.timeline.host import Sleep, Steps
from nicemu.timeline.loop import Quiescent
from tests.mm.notifier_clients import BASE, PAGE, Client, Interval, insert, pair, register, warnings


@pytest.fixture
def calls() -> list[str]:
    return []


# Registration ---------------------------------------------------------------------------------------------------------


def test_subscriptions_come_with_the_first_user(machine: Any, calls: list[str]) -> None:
    machine.run(pair(machine))
    assert machine.mm.intervals.invalidate_seq == 0
    register(machine, Client(calls))
    assert machine.mm.intervals.invalidate_seq == 2


def test_register_takes_mmap_lock_for_write(machine: Any, calls: list[str]) -> None:
    def reader() -> Steps[None]:
        yield from machine.mm.mmap_lock.acquire_read(machine.scheduler.current)
        yield 5_000
        machine.mm.mmap_lock.release(machine.scheduler.current)

    machine.scheduler.spawn(reader(), "reader")
    register(machine, Client(calls))
    assert machine.scheduler.clock() == 5_000


def test_nobody_registers_with_mmap_lock_held(machine: Any, calls: list[str]) -> None:
    def holds() -> Steps[None]:
        yield from machine.mm.mmap_lock.acquire_read(machine.scheduler.current)
        yield from machine.mm.notifiers.register(Client(calls))

    with pytest.raises(Quiescent, match="deadlock: program waits for mmap_lock"):
        machine.run(holds())
    assert [(report.kind, report.lock) for report in machine.host.reports] == [
        (Kind.WARNING, "mmap_lock"), (Kind.RECURSIVE, "mmap_lock"),
    ]  # fmt: skip


def test_nobody_registers_with_a_reverse_map_locked(machine: Any, calls: list[str]) -> None:
    lock = RwSemaphore(machine.scheduler, "i_mmap_rwsem")

    def holds() -> Steps[None]:
        yield from lock.acquire_read(machine.scheduler.current)
        yield from machine.mm.notifiers.register(Client(calls))
        lock.release(machine.scheduler.current)

    machine.run(holds())
    assert warnings(machine) == ["mmu_notifier_register with i_mmap_rwsem held"]


def test_an_address_space_without_users_takes_no_subscriber(machine: Any, calls: list[str]) -> None:
    machine.run(machine.process.exit())
    for attempt in (
        lambda: register(machine, Client(calls)), lambda: machine.run(machine.mm.notifiers.get(Counted)),
        lambda: insert(machine, Interval(calls)),
    ):  # fmt: skip
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("start", "length"), [(BASE, 0), ((1 << 64) - PAGE, 2 * PAGE)])
def test_an_interval_that_is_none_overflows(machine: Any, calls: list[str], start: int, length: int) -> None:
    with pytest.raises(OSError) as caught:
        machine.mm.intervals.insert(Interval(calls), start, length)
    assert caught.value.errno == errno.EOVERFLOW


def test_secondary_tlbs_and_ranges_exclude_each_other(make_machine: Any) -> None:
    class Both(Client):
        def arch_invalidate_secondary_tlbs(self, mm: Any, start: int, end: int) -> None:
            pass

    machine = make_machine("v6.12")
    with pytest.raises(OSError, match="has arch_invalidate_secondary_tlbs and range callbacks") as caught:
        register(machine, Both([]))
    assert caught.value.errno == errno.EINVAL and len(warnings(machine)) == 1
    register(make_machine("v3.7"), Both([]))  # the rule came with the callback


def test_secondary_tlbs_are_flushed_with_the_cpus(make_machine: Any) -> None:
    class WalksCpuTables(NotifierSubscriber):
        flushed: list[tuple[int, int]]

        def arch_invalidate_secondary_tlbs(self, mm: Any, start: int, end: int) -> None:
            self.flushed.append((start, end))

    for era in ("v3.7", "v6.12"):
        machine, client = make_machine(era), WalksCpuTables()
        client.flushed = []
        register(machine, client)
        at = machine.run(machine.process.mmap(PAGE))
        machine.run(machine.process.write(at, b"x"))
        machine.run(machine.process.madvise(at, PAGE, 4))
        assert client.flushed == ([(at, at + PAGE)] if era == "v6.12" else [])


# Unregister, get and put ----------------------------------------------------------------------------------------------


def test_after_unregister_no_callback_runs(machine: Any, calls: list[str]) -> None:
    client = Client(calls, ns=10_000)
    register(machine, client)
    machine.scheduler.spawn(pair(machine), "invalidation")

    def unregisters() -> Steps[int]:
        yield Sleep(1_000)
        client.ns = 0
        yield from machine.mm.notifiers.unregister(client)
        return int(machine.scheduler.clock())

    assert machine.run(unregisters()) == 10_000
    machine.run(pair(machine))
    assert calls == ["client start", "client release"]


def test_a_subscriber_unlinked_before_its_turn_is_not_called(machine: Any, calls: list[str]) -> None:
    late, early = Client(calls, "late"), Client(calls, "early", ns=10_000)
    register(machine, late, early)
    machine.scheduler.spawn(pair(machine), "invalidation")

    def unregisters() -> Steps[None]:
        yield Sleep(1_000)
        yield from machine.mm.notifiers.unregister(late)

    machine.run(unregisters())
    assert calls == ["early start", "late release"]


class Counted(NotifierSubscriber):
    """Made by ``get``."""

    freed: int = 0

    def free_notifier(self) -> None:
        self.freed += 1


def test_get_gives_one_subscriber_per_kind(machine: Any) -> None:
    first, second = (machine.run(machine.mm.notifiers.get(Counted)) for _ in range(2))
    assert first is second and first.users == 2 and machine.mm.notifiers.subscribers == [first]


def test_the_last_put_frees_after_a_grace_period(machine: Any) -> None:
    client = machine.run(machine.mm.notifiers.get(Counted))
    machine.run(machine.mm.notifiers.get(Counted))

    def puts() -> Steps[None]:
        index = machine.host.srcu.enter(machine.scheduler.current)
        machine.mm.notifiers.put(client)
        assert machine.mm.notifiers.subscribers == [client]
        machine.mm.notifiers.put(client)
        assert machine.mm.notifiers.subscribers == []
        yield Sleep(1_000)
        assert client.freed == 0
        machine.host.srcu.exit(index)
        yield from mmu_notifier_synchronize(machine.host)
        assert client.freed == 1

    machine.run(puts())
    assert machine.host.reports == []


def test_one_put_too_many_warns(machine: Any) -> None:
    def puts() -> Steps[None]:
        yield 0
        machine.mm.notifiers.put(Counted())

    machine.run(puts())
    assert warnings(machine) == ["subscriber has no users"]


def test_put_from_release(machine: Any) -> None:
    class PutsItself(Counted):
        def release(self, mm: Any) -> Steps[None]:
            mm.notifiers.put(self)
            yield from ()

    client = machine.run(machine.mm.notifiers.get(PutsItself))
    machine.run(machine.process.exit())
    machine.run(mmu_notifier_synchronize(machine.host))
    assert client.freed == 1 and machine.host.reports == []


# Release --------------------------------------------------------------------------------------------------------------


def test_exit_releases_intervals_first_then_the_chain(machine: Any, calls: list[str]) -> None:
    register(machine, Client(calls, "older"), Client(calls, "newer"))
    insert(machine, Interval(calls))
    machine.run(machine.process.exit())
    assert calls == ["interval RELEASE", "newer release", "older release"]
    assert machine.mm.notifiers.subscribers == []


def test_subscribers_are_on_the_list_until_all_are_released(machine: Any, calls: list[str]) -> None:
    """Release may run at the same time as other callbacks."""
    client = Client(calls, ns=10_000)
    register(machine, client)
    machine.scheduler.spawn(machine.process.exit(), "exit")

    def truncates() -> Steps[None]:
        yield Sleep(5_000)
        client.ns = 0
        yield from pair(machine)

    machine.run(truncates())
    assert calls == ["client release", "client start"]


def test_exit_waits_for_a_release_that_unregister_called(machine: Any, calls: list[str]) -> None:
    client = Client(calls, ns=10_000)
    register(machine, client)
    machine.scheduler.spawn(machine.mm.notifiers.unregister(client), "unregister")

    def exits() -> Steps[int]:
        yield Sleep(1_000)
        client.ns = 0
        yield from machine.process.exit()
        return int(machine.scheduler.clock())

    assert machine.run(exits()) >= 10_000
