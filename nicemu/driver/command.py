"""The command queue (``mlx5_cmd_exec``): slots, mailboxes, and threads that sleep until the completion's interrupt.

Up to ``COMMAND_SLOTS`` commands are in flight; further threads queue for a slot in order. A slot is free again when
its completion EQE has been handled, whether anybody waits for it or not. A command that times out leaves its slot taken
(``wait_func``: a leak), and with all slots so nothing is tried any more (``mlx5_cmd_all_stalled``). Mailboxes belong to
no slot; the one freed last is used next, so there are as many in memory as commands were in flight at once.

The timeout runs only for commands that an injected fault has kept from the device: what else keeps one from being
answered (a lost interrupt, which mlx5 recovers from at that time) is the watchdog's to report.
"""

from __future__ import annotations

import errno
from collections import deque
from enum import IntEnum
from typing import Any

from nicemu.abi.command import ANSWER, COMMAND_BYTES, COMMAND_SLOTS, COMMAND_STATUS, COMMANDS, Command, Status
from nicemu.abi.rings import Doorbell, doorbell_offset
from nicemu.driver.errors import DriverError
from nicemu.driver.ring import Allocator, Memory
from nicemu.timeline.host import Completion, Scheduler, Steps

MAILBOX_BYTES = 64 << 10
MTT_CHUNK = MAILBOX_BYTES // 8
"""MTT entries of one UPDATE_MTT: as many as a mailbox holds (mlx5's fallback XLT buffer is 64 KiB as well)."""

COMMAND_DOORBELL = doorbell_offset(Doorbell.COMMAND, 0)
TIMEOUT_NS = 65_000_000_000
"""``MLX5_TO_CMD_MS`` (60 s), and ``MLX5_CMD_TIMEOUT_RECOVER_MSEC`` (5 s) in which a lost event may yet be found."""


class Conclusion(IntEnum):
    """What the driver makes of a command without an answer; beside ``Status``."""

    TIMED_OUT = 255


ERRNO: dict[Status | Conclusion, int] = {
    Status.BAD_OPCODE: errno.EOPNOTSUPP,
    Status.BAD_PARAM: errno.EINVAL,
    Status.BAD_RESOURCE: errno.EINVAL,
    Status.NO_MEMORY: errno.ENOMEM,
    Status.BAD_STATE: errno.EINVAL,
    Status.INTERNAL_ERROR: errno.EIO,
    Conclusion.TIMED_OUT: errno.ETIMEDOUT,
}
"""``mlx5_cmd_check``: command status to errno."""
PUT = [command.pack_into for command in COMMANDS]
STATUS = {int(status): status for status in Status}


class CommandQueue:
    """One device's command ring, and as many mailboxes as slots."""

    def __init__(self, device: Any, scheduler: Scheduler, allocate: Allocator) -> None:
        self.device, self.scheduler = device, scheduler
        self._ring = allocate(COMMAND_SLOTS * COMMAND_BYTES)
        pool = allocate(COMMAND_SLOTS * MAILBOX_BYTES)
        self._mailboxes = [
            Memory(pool.address + at, pool.view[at : at + MAILBOX_BYTES])
            for at in reversed(range(0, COMMAND_SLOTS * MAILBOX_BYTES, MAILBOX_BYTES))
        ]
        """Those that are free."""
        self._free = deque(range(COMMAND_SLOTS))
        self._queue: deque[Completion] = deque()
        self._flight: dict[int, tuple[Completion, int, Memory]] = {}
        self.expected: dict[int, Completion] = {}
        """Commands that will time out, by slot."""
        self.stalled: set[int] = set()
        """Slots of commands that have timed out."""
        self._names = {opcode: f"{opcode.name} of {device.name}" for opcode in Command}
        device.set_command_ring(self._ring.address)

    def post(
        self, opcode: Command, params: tuple[int, ...], mailbox: Any = b"", reply_bytes: int = 0
    ) -> Steps[Completion]:
        """Submit a command. The completion's value is (status, reply, when it was done)."""
        assert len(mailbox) <= MAILBOX_BYTES, "command: mailbox too small"
        if len(self.stalled) == COMMAND_SLOTS:
            raise DriverError(errno.EAGAIN, f"{self.device.name}: every command slot waits for an answer")
        slot = self._free.popleft() if self._free else (yield from self._wait_for_slot(opcode))
        box = self._mailboxes.pop()
        if mailbox:
            box.view[: len(mailbox)] = mailbox
        PUT[len(params)](self._ring.view, slot * COMMAND_BYTES, opcode, 0, *params, box.address)
        completion = Completion(self.scheduler, self._names[opcode])
        self._flight[slot] = completion, reply_bytes, box
        self.device.write_doorbell(COMMAND_DOORBELL + (slot << 3), 1)
        return completion

    def execute(self, opcode: Command, *params: int, mailbox: Any = b"", reply_bytes: int = 0) -> Steps[bytes]:
        """Submit a command and sleep until its interrupt; gives the reply. A bad status is an error."""
        completion = yield from self.post(opcode, params, mailbox, reply_bytes)
        status, reply, _ = yield completion
        if status:
            raise DriverError(ERRNO[status], f"{self.device.name}: command {opcode.name} failed with {status.name}")
        answer: bytes = reply
        return answer

    def complete(self, slot: int, status: int, done: int) -> None:
        """``mlx5_cmd_comp_handler``: the device has finished a command."""
        completion, reply_bytes, box = self._flight.pop(slot)
        reply = bytes(box.view[:reply_bytes]) if reply_bytes else b""
        self._mailboxes.append(box)
        if self._queue:
            self._queue.popleft().complete(slot)
        else:
            self._free.append(slot)
        completion.complete((STATUS[status], reply, done))

    def opcode(self, slot: int) -> int:
        """What a slot asks for."""
        return int.from_bytes(self._ring.view[slot * COMMAND_BYTES :][:4], "little")

    def refuse(self, slot: int, status: Status) -> None:
        """Fault injection: the device answers with this status and does nothing."""
        at = slot * COMMAND_BYTES + COMMAND_STATUS
        self._ring.view[at : at + 4] = (ANSWER + status).to_bytes(4, "little")

    def expect_timeout(self, slot: int) -> None:
        """Fault injection: nobody answers; :meth:`time_out` ends the wait."""
        self.expected[slot] = self._flight[slot][0]

    def time_out(self, slot: int) -> None:
        """``wait_func_handle_exec_timeout``: whoever waits gets ETIMEDOUT; the slot stays the device's."""
        self.stalled.add(slot)
        self.expected.pop(slot).complete((Conclusion.TIMED_OUT, b"", self.scheduler.clock()))

    def _wait_for_slot(self, opcode: Command) -> Steps[int]:
        turn = Completion(self.scheduler, f"a command slot for {opcode.name}")
        self._queue.append(turn)
        slot: int = yield turn
        return slot
