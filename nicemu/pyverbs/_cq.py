"""Completion channels, and completion queues as `ibv_create_cq` makes them."""

from __future__ import annotations

from typing import Any

from nicemu.abi.rings import CQE_BYTES, Doorbell, cq_slots
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._completion_ring import CompletionRing
from nicemu.pyverbs._fields import I32, U32, expect
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._ring_memory import ResourceType, RingMemory, allocate, has_allocator
from nicemu.pyverbs._text import lines
from nicemu.pyverbs._wc import WC, from_cqe
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.pd import PD
from nicemu.uverbs import messages

_ARM_NEXT, _ARM_SOLICITED = 1, 2


class CompChannel(Resource):
    """Where CQs tell of completions. `fd` is readable while events wait."""

    __slots__ = ("_context", "_fd")
    KIND = "ccs"
    CHILDREN = ("cqs",)

    def __init__(self, context: Context) -> None:
        expect(context, Context, "context")
        super().__init__()
        self._kernel = context._kernel
        command = messages.CreateCompChannel(context._opened())
        self._handle, self._fd = self._execute(command, "Failed to create a completion channel")
        self._context: Context | None = context
        self._attach(context)

    def get_cq_event(self, expected_cq: CQ) -> None:
        """Wait for the next event. PyverbsRDMAError: it is of another CQ than `expected_cq`."""
        expect(expected_cq, CQ, "expected_cq")
        handle = self._execute(messages.GetCqEvent(self._opened()), "Failed to get CQ event")
        if handle != expected_cq._handle:
            raise PyverbsRDMAErrno("Received event on an unexpected CQ")
        expected_cq._num_events += 1

    @property
    def fd(self) -> int:
        """A file descriptor for select, poll and the like."""
        self._opened()
        return int(self._fd)

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyCompChannel(handle), "Failed to destroy a completion channel")

    def _release(self) -> None:
        self._context = None


class CompletionQueue(Resource):
    """What both kinds of CQ have in common."""

    __slots__ = ("_channel", "_context", "_cqe", "_device_index", "_memory", "_number", "_ring")
    KIND = "cqs"
    CHILDREN = ("qps", "srqs", "wqs")

    def _create(
        self,
        context: Context,
        cqe: int,
        channel: CompChannel | None,
        comp_vector: int,
        ignore_overrun: bool = False,
        parent_domain: PD | None = None,
    ) -> None:
        """May raise any OSError that the kernel side gives."""
        expect(context, Context, "context")
        expect(channel, CompChannel, "channel", optional=True)
        self._kernel = context._kernel
        arguments = context._opened(), cqe, channel._opened() if channel is not None else 0, comp_vector
        domain = parent_domain._opened() if parent_domain is not None else 0
        self._memory = self._ring_memory(context, parent_domain, cqe)
        command = messages.CreateCq(*arguments, ignore_overrun, domain, *self._memory.places)
        with self._memory:
            response = self._kernel.execute(command)
        self._handle, self._number, self._cqe = response.handle, response.number, response.cqe
        self._ring = CompletionRing(response)
        self._device_index = context._device_index
        self._context: Context | None = context
        self._channel = channel
        if channel is not None:
            self._attach(channel)
        self._attach(context)

    @staticmethod
    def _ring_memory(context: Context, parent_domain: PD | None, cqe: int) -> RingMemory:
        """Memory that the parent domain's allocator gives, if it has one and the device can have such a CQ."""
        if parent_domain is None or not has_allocator(parent_domain) or not 1 <= cqe <= context.query_device().max_cqe:
            return RingMemory()
        return allocate(parent_domain, cq_slots(cqe) * CQE_BYTES, ResourceType.CQ)

    def resize(self, cqe: int) -> None:
        """Change the depth to at least `cqe`; what waits stays, in order.

        PyverbsRDMAError: EINVAL if `cqe` is not in 1..max_cqe or more completions wait; nothing is changed then.
        """
        self._ring.publish()
        response = self._execute(messages.ResizeCq(self._opened(), I32(cqe)), "Failed to resize CQ")
        self._cqe = response.cqe
        self._ring.move(response)

    def _wait(self) -> bool:
        """Let time pass while the CQ is empty; False if it still is. PyverbsRDMAError: EOPNOTSUPP in a forked child."""
        try:
            there: bool = self._kernel.poll(self._number, self._device_index, self._ring.nonempty)
        except messages.VerbsError as error:
            raise _kernel.failed("Failed to poll CQ", error) from error
        return there

    def _release(self) -> None:
        self._memory.free()
        self._context = self._channel = None


class CQ(CompletionQueue):
    """A completion queue with room for at least `cqe` entries.

    PyverbsRDMAError: EINVAL if `cqe` is not in 1..max_cqe or there is no `comp_vector` of that number.
    """

    __slots__ = ("_num_events",)

    def __init__(
        self,
        context: Context,
        cqe: int,
        cq_context: Any = None,
        channel: CompChannel | None = None,
        comp_vector: int = 0,
    ) -> None:
        super().__init__()
        self._num_events = 0
        try:
            self._create(context, I32(cqe), channel, I32(comp_vector))
        except OSError as error:
            raise _kernel.failed("Failed to create a CQ", error) from error

    def poll(self, num_entries: int = 1) -> tuple[int, list[WC]]:
        """Take up to `num_entries` completions: (how many, the completions). On an empty CQ virtual time runs first."""
        if self._handle is None:  # programs poll in loops: asked here, an empty poll costs a call less
            self._opened()
        ring = self._ring
        if num_entries > 0 and not ring.nonempty() and not self._wait():
            return 0, []
        completions = list(map(from_cqe, ring.take(num_entries)))
        if completions:
            ring.publish()
        return len(completions), completions

    def req_notify(self, solicited_only: bool = False) -> None:
        """Ask for an event at the next completion, or at the next solicited or failed one."""
        self._opened()
        kind = _ARM_SOLICITED if I32(solicited_only) else _ARM_NEXT
        try:
            self._kernel.ring_doorbell(self._device_index, Doorbell.CQ_ARM, self._number, kind)
        except messages.VerbsError as error:
            raise _kernel.failed(f"Request notify CQ returned {error.errno}", error) from error

    def ack_events(self, num_events: int) -> None:
        """Say that so many events have been dealt with."""
        self._num_events -= U32(num_events)
        self._kernel.acknowledge("completion", self._opened(), num_events)

    def _destroy(self, handle: int) -> None:
        if self._num_events:
            self.ack_events(self._num_events)
        self._execute(messages.DestroyCq(handle), "Failed to close CQ")

    @property
    def comp_channel(self) -> CompChannel | None:
        """The channel given at creation."""
        return self._channel

    @property
    def cqe(self) -> int:
        """How many entries the CQ has room for."""
        self._opened()
        return int(self._cqe)

    @property
    def cq(self) -> int:
        """A number that stands for the open CQ; 0 when closed."""
        return self._handle or 0

    def __str__(self) -> str:
        return "CQ\n" + lines([("Handle", self._opened()), ("CQEs", self.cqe)])
