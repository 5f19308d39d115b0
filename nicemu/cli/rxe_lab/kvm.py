"""KVM or emulation: /dev/kvm may be there and accept a guest that then never runs, so what counts is a boot.

A boot that failed with KVM is remembered until the host restarts; emulation takes over within the same run.
"""

import contextlib
import platform
import sys
from pathlib import Path

from nicemu.cli.rxe_lab import cache, qemu
from nicemu.config.errors import ConfigError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Choice:
    """`accel` is for the next boot: tcg or kvm."""

    def __init__(self, wanted: str, program: str) -> None:
        if wanted == "kvm" and not qemu.has_kvm():
            raise ConfigError("--accel kvm: /dev/kvm is not there, not ours to open, or refuses a guest")
        self._chosen_for_us = wanted == "auto"
        self._file = cache.folder() / "kvm"
        self._here = f"{platform.release()} {program} {BOOT_ID.read_text().strip() if BOOT_ID.exists() else ''}"
        if self._chosen_for_us:
            wanted = "kvm" if qemu.has_kvm() and not self._has_failed() else "tcg"
        self.accel = wanted

    def _has_failed(self) -> bool:
        try:
            return self._file.read_text() == self._here
        except OSError:
            return False

    def falls_back(self, reason: str) -> bool:
        """After a boot that failed: True if that was with KVM, which nobody asked for; emulation is next."""
        if self.accel != "kvm" or not self._chosen_for_us:
            return False
        print(f"KVM is here, but no guest boots with it ({reason[:120]}): emulating, until this machine restarts",
              file=sys.stderr, flush=True)  # fmt: skip
        self.accel = "tcg"
        with contextlib.suppress(OSError):  # the next run finds out again
            self._file.write_text(self._here)
        return True
