"""How long a boot may take, by the processor time that QEMU has used.

By the clock alone a busy host would look like a guest that hangs.
"""

import os
import time
from pathlib import Path

from nicemu.cli.rxe_lab.qemu import Machine

REFERENCE = 0.015
"""Seconds that `_loop` took on the machine on which a boot took 5 to 8 s."""

WALL = 4
"""A boot that sleeps uses no processor time: it is given up after so many times the limit, by the clock."""

KVM_SECONDS = 20
"""By the clock: a boot with KVM takes 2 s, and one that never starts uses no processor time we could measure."""


def _loop() -> float:
    began = time.process_time()
    total = 0
    for number in range(600_000):
        total ^= number
    return time.process_time() - began


def slowness() -> float:
    """How many times slower than the machine of REFERENCE this one is; never less than 1."""
    return max(1.0, _loop() / REFERENCE)


class Watch:
    """The times of one boot. `deadline` is the whole run's, on the monotonic clock."""

    def __init__(self, machine: Machine, deadline: float) -> None:
        self.began = time.monotonic()
        self.deadline = deadline
        self.is_late = False  # the run's deadline, not the boot's
        self._kvm = machine.accel == "kvm"
        self._limit = machine.boot_seconds * slowness()

    def is_up(self) -> None:
        """rxe0 is there: from now on only the deadline counts."""
        self._limit = float("inf")

    def over(self, pid: int, up: bool) -> str:
        """Why QEMU has to be ended now, or nothing."""
        now = time.monotonic()
        if now >= self.deadline:
            self.is_late = True
            return f"the time limit was reached {'while the command ran' if up else 'before rxe0 was there'}"
        if up:
            return ""
        used, passed = processor_seconds(pid), now - self.began
        if self._kvm and passed >= KVM_SECONDS:
            return f"no rxe0 after {passed:.0f} s with KVM"
        if used >= self._limit or passed >= WALL * self._limit:
            return f"no rxe0 after {passed:.0f} s and {used:.0f} s of processor time"
        return ""


def processor_seconds(pid: int) -> float:
    """User and system time of a process, 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime
