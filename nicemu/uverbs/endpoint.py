"""One process's way into the emulated host: verbs commands, system calls, the doorbell page, and waiting.

Every public call takes the timeline's lock. After a fork the child's endpoint is ``forked``: it sends its commands to
the parent (``fork.py``); doorbells and polling are refused, for the rings are the parent's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from nicemu.abi.rings import Doorbell, doorbell_offset
from nicemu.driver.core import Driver
from nicemu.timeline.loop import Timeline
from nicemu.uverbs.dispatch import Dispatcher
from nicemu.uverbs.fork import ChildMemory, Children, Parent
from nicemu.uverbs.messages import GetAsyncEvent, GetCqEvent

T = TypeVar("T")
QUANTUM_NS = 10_000_000
DOORBELLS = [bank.name for bank in Doorbell]
DESTROYS = {"DestroyQp": ("qp",), "DestroyCq": ("completion", "cq"), "DestroySrq": ("srq",), "DestroyWq": ("wq",)}
"""Events that must be acknowledged before a command destroys their object."""


class Endpoint:
    """``process``: the modelled process (``mm.syscalls.Process``); its address space is where MRs lie.

    A call made while the same thread is inside another one (a garbage collection in the middle of it finalises an
    object) is put off until that one is done.
    """

    def __init__(self, timeline: Timeline, driver: Driver, process: Any) -> None:
        self.timeline, self.driver = timeline, driver
        self.devices = [device.device for device in driver.devices]
        """The hardware, by index."""
        self.dispatcher = Dispatcher(driver, process.mm)
        self.process: Any = SystemCalls(self, process)
        self.children = Children(self)
        self.parent: Parent | None = None
        """In a forked child: who has the device."""
        self.unacknowledged: Counter[tuple[str, int]] = Counter()
        """Events the program took and has not acknowledged, by kind and handle of their object."""
        self._inside: set[int] = set()
        self._put_off: deque[Callable[[], Any]] = deque()

    def execute(self, command: Any) -> Any:
        """Run a verbs command to its end; gives its response.

        :raises VerbsError: it failed.
        """
        if self.parent is not None:
            return self.parent.execute(command)
        return self.enter(self._execute, command)

    @property
    def forked(self) -> bool:
        """This process is a forked child of the one that has the device."""
        return self.parent is not None

    def become_child(self, end: socket.socket | None) -> None:
        """This process was forked: ``end`` leads to the parent, None if that is a child itself."""
        self.children.forget()
        if self.parent is not None:
            self.parent.close()
        self.parent = Parent(end, self)
        self.process = ChildMemory(self.parent, getattr(self.process, "allocated", {}))
        self._inside.clear()
        self._put_off.clear()

    def _execute(self, command: Any) -> Any:
        name = type(command).__name__
        file = self.dispatcher.event_file(command)
        if file is not None and file.blocking:
            self.timeline.host.event("wait", what=name)
            self.timeline.wait(lambda: file.ready, f"{name}: no event")
            self.timeline.host.event("wait_done", what=name)
        self._await_acknowledgements(command)
        response = self.timeline.call(self.dispatcher.run(command), name)
        if isinstance(command, GetCqEvent):
            self.unacknowledged["completion", response] += 1
        elif isinstance(command, GetAsyncEvent):
            self.unacknowledged[response.object_kind, response.handle] += 1
        return response

    def acknowledge(self, kind: str, handle: int, count: int = 1) -> None:
        """``ibv_ack_cq_events`` (kind ``completion``), ``ibv_ack_async_event`` (kind of the event's object)."""
        self.enter(self._acknowledge, kind, handle, count)

    def _acknowledge(self, kind: str, handle: int, count: int) -> None:
        self.unacknowledged[kind, handle] -= count
        self.timeline.changed.notify_all()

    def _await_acknowledgements(self, command: Any) -> None:
        """An object is not destroyed before all events of it that the program took are acknowledged.

        libibverbs waits without end; here another thread may still acknowledge, else the program is told who waits.
        """
        name = type(command).__name__
        for kind in DESTROYS.get(name, ()):
            self._await_acknowledgement(name, (kind, getattr(command, fields(command)[0].name)))

    def _await_acknowledgement(self, name: str, key: tuple[str, int]) -> None:
        if self.unacknowledged[key]:
            events = "completion events" if key[0] == "completion" else f"async events of the {key[0].upper()}"
            what = f"{name}: {self.unacknowledged[key]} {events} not acknowledged"
            self.timeline.wait(lambda: not self.unacknowledged[key], what)
        del self.unacknowledged[key]

    def ring_doorbell(self, device_index: int, bank: int, number: int, value: int) -> None:
        """Write a doorbell register (``abi.rings.Doorbell``) of a device."""
        self.enter(self.devices[device_index].write_doorbell, doorbell_offset(bank, number), value)

    def poll(self, cq_number: int, device_index: int, nonempty: Callable[[], bool],
             quantum_ns: int = QUANTUM_NS) -> bool:  # fmt: skip
        """Let time pass until the CQ is not empty, at most ``quantum_ns``; False: it still is."""
        if self.parent is None and self.timeline.polls_in_vain():
            return False
        return bool(self.enter(self._poll, cq_number, device_index, nonempty, quantum_ns))

    def _poll(self, cq_number: int, device_index: int, nonempty: Callable[[], bool], quantum_ns: int) -> bool:
        device = self.devices[device_index]
        device.watch(cq_number, True)
        try:
            return self.timeline.poll(nonempty, quantum_ns)
        finally:
            device.watch(cq_number, False)

    def settle(self, done: Callable[[], bool], limit_ns: int) -> bool:
        """Let time pass until ``done()``, at most ``limit_ns`` and as long as there is something to do."""
        return bool(self.enter(lambda: self.timeline.advance(done, self.timeline.host.clock() + limit_ns)))

    def enter(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """Make a call under the timeline's lock; None if it was put off. Refused in a forked child."""
        if self.parent is not None:
            self.parent.refuse("the device")
        me = threading.get_ident()
        if me in self._inside:
            self._put_off.append(partial(call, *arguments))
            return None
        with self.timeline.lock:
            try:
                self._inside.add(me)
                return call(*arguments)
            finally:
                self._inside.discard(me)
                while self._put_off:
                    with contextlib.suppress(OSError):  # nobody is there to hear of it
                        self.enter(self._put_off.popleft())

    def device_index(self, context: int) -> int:
        """Index of the device that a context is open on."""
        index: int = self.driver.contexts.get(context).device.index
        return index

    def software(self, context: int) -> Any:
        """How driver and library of the device behave that a context is open on (``config.SoftwareProfile``)."""
        return self.driver.contexts.get(context).device.profile.software

    def event_fds(self) -> set[int]:
        """Descriptors that become readable when the timeline runs: of completion channels and async events."""
        return {file.fd for file in self.dispatcher.event_files()}


class LoggedEndpoint(Endpoint):
    """An endpoint that tells the event log what never becomes a command: doorbells and polls."""

    def ring_doorbell(self, device_index: int, bank: int, number: int, value: int) -> None:
        """As any. Arming a CQ is in the log as what the device does about it."""
        self.enter(self._ring_doorbell, device_index, bank, number, value)

    def _ring_doorbell(self, device_index: int, bank: int, number: int, value: int) -> None:
        if bank != Doorbell.CQ_ARM:
            name = DOORBELLS[bank]
            self.timeline.host.event("doorbell", nic=device_index, bank=name, number=number, producer=value)
        self.devices[device_index].write_doorbell(doorbell_offset(bank, number), value)

    def poll(self, cq_number: int, device_index: int, nonempty: Callable[[], bool],
             quantum_ns: int = QUANTUM_NS) -> bool:  # fmt: skip
        """As any, and one in vain is in the log as well."""
        return bool(self.enter(self._poll, cq_number, device_index, nonempty, quantum_ns))

    def _poll(self, cq_number: int, device_index: int, nonempty: Callable[[], bool], quantum_ns: int) -> bool:
        self.timeline.host.event("poll", nic=device_index, cqn=cq_number)
        try:
            return super()._poll(cq_number, device_index, nonempty, quantum_ns)
        finally:
            self.timeline.host.event("poll_done", nic=device_index, cqn=cq_number)


class SystemCalls:
    """The program's memory system calls: each runs the method of that name of ``mm.syscalls.Process`` to its end."""

    def __init__(self, endpoint: Endpoint, process: Any) -> None:
        self._endpoint, self.model = endpoint, process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        steps = getattr(self.model, name)
        if not callable(steps):
            return steps  # type: ignore[no-any-return]

        def call(*arguments: Any, **options: Any) -> Any:
            timeline = self._endpoint.timeline
            return self._endpoint.enter(lambda: timeline.call(steps(*arguments, **options), name))

        return call
