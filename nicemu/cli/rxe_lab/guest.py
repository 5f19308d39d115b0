"""Boot the guest, run one command in it, and end it.

    result = guest.run(["ibv_devinfo", "-v"], Machine(kernel="7.3", share=Path("out"), mtu=9000), timeout=300)

A boot that does not reach rxe0 is killed and tried again, up to three times; a command that has begun is never
repeated.
"""

import contextlib
import os
import re
import selectors
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nicemu.cli.ending import die_with_parent
from nicemu.cli.rxe_lab import image, kvm, lock, qemu
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.cli.rxe_lab.terminal import Terminal
from nicemu.cli.rxe_lab.watch import Watch

TRIES = 3
LONGEST = 4096  # bytes of a line of the guest's first process that are kept
TIMED_OUT, LOST = 124, 125
"""Statuses of our own, as of timeout(1): the time was over; the guest did not boot, or died."""

OnOutput = Callable[[str, bytes], None]
"""Gets what the guest writes as it comes: ("out" | "err" | "console" | "dmesg", bytes).

The stream "stage" has a word for each stage of a boot: modules, network, rxe0."""


@dataclass(frozen=True)
class Result:
    """How a run ended. `status` is the command's, TIMED_OUT or LOST; `reason` says why for those two."""

    status: int
    reason: str
    boot_seconds: float  # from the start of QEMU to rxe0, of the boot that got there
    seconds: float  # the whole run, retries and all
    retries: int  # boots that did not reach rxe0
    accel: str  # tcg or kvm

    @property
    def completed(self) -> bool:
        """Whether the command ran to its end, whatever its status."""
        return not self.reason


def discard(_stream: str, _content: bytes) -> None:
    """Nobody wants the output."""


def run(
    command: Sequence[str | os.PathLike[str]] | None,
    machine: Machine = Machine(),
    *,
    timeout: float | None = None,
    on_output: OnOutput = discard,
    want: Sequence[str] = (),
) -> Result:
    """Run `command` as root in a guest, in /share, with /dev/null as its input; without one, a shell on our terminal.

    The image is built first if there is none. `timeout` is for all boots and the command together, in seconds. `want`
    may hold "dmesg": the kernel's log is then given to `on_output` at the end. Raises ConfigError if there is no QEMU,
    no package, not enough memory or space; a guest that does not come up is a Result.
    """
    program = qemu.find()
    qemu.check(machine)
    locked = lock.read(machine.lock or lock.FILE)
    machine = replace(machine, kernel=machine.kernel or locked.default_kernel)
    built = image.ready(locked, machine.kernel, machine.mirror)
    began = time.monotonic()
    deadline = began + timeout if timeout is not None else float("inf")
    choice = kvm.Choice(machine.accel, program)
    retries = 0
    while True:
        machine = replace(machine, accel=choice.accel)
        boot = Boot(command, machine, on_output, deadline)
        boot.run(program, built, want)
        if not boot.up and not boot.said_why and choice.falls_back(boot.reason):
            continue
        if boot.up or boot.final or retries + 1 == TRIES:
            break
        retries += 1
        print(f"boot {retries} of {TRIES} has not reached rxe0 ({boot.reason}): again", file=sys.stderr, flush=True)
    return Result(boot.status, boot.reason, boot.boot_seconds, time.monotonic() - began, retries, machine.accel)


class Boot:
    """One start of QEMU: `up` once rxe0 is there; `final` if another try would end the same way.

    `said_why`: the guest's first process has, or the time was over: it is not KVM's fault.
    """

    def __init__(
        self, command: Sequence[str | os.PathLike[str]] | None, machine: Machine, on_output: OnOutput, deadline: float
    ) -> None:
        self.command, self.machine, self.on_output, self.deadline = command, machine, on_output, deadline
        self.up = self.final = self.said_why = self._ended = False
        self.status, self.reason, self.boot_seconds = LOST, "", 0.0
        self._lines = b""
        self._console = b""  # the last of it
        self._errors = b""

    def run(self, program: str, built: image.Image, want: Sequence[str]) -> None:
        """Boot, run and end; QEMU is gone afterwards, whatever happens."""
        with tempfile.TemporaryDirectory(prefix="nicemu-rxe-") as scratch, Terminal(self.command is None) as terminal:
            folder = Path(scratch)
            folder.chmod(0o755)
            self._write_settings(folder, terminal)
            pipes = {name: os.pipe() for name in ("control", "out", "err", *want)}
            ours, theirs = socket.socketpair()  # eth0's other end: what it sends has to go somewhere
            pipes[qemu.FRAMES] = ours.detach(), theirs.detach()
            writers = [writer for _, writer in pipes.values()]
            words = qemu.command(program, self.machine, built, folder, dict(zip(pipes, writers, strict=True)))
            self.watch = Watch(self.machine, self.deadline)
            self.on_output("stage", f"Linux {self.machine.kernel}".encode())
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=writers,
                    preexec_fn=die_with_parent, process_group=0, bufsize=0,
                )  # fmt: skip
            finally:
                for writer in writers:
                    os.close(writer)
            try:
                self._follow(process, {name: reader for name, (reader, _) in pipes.items()}, terminal)
            finally:
                process.kill()
                process.wait()
                for reader, _ in pipes.values():
                    os.close(reader)
                for file in (process.stdin, process.stdout, process.stderr):
                    file.close()  # type: ignore[union-attr]

    def _write_settings(self, folder: Path, terminal: Terminal) -> None:
        settings = {
            "mtu": self.machine.mtu, "hugepages": 96 if self.machine.memory >= 1024 else 0,
            "shared": "yes" if self.machine.share else "no", "interactive": "yes" if self.command is None else "no",
            "rows": terminal.rows, "columns": terminal.columns, "TERM": os.environ.get("TERM", "vt100"),
        }  # fmt: skip
        lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()]
        (folder / "settings").write_text("".join(lines))
        words = [os.fsencode(word) + b"\0" for word in self.command or ()]
        (folder / "argv").write_bytes(b"".join(words))

    def _follow(self, process: "subprocess.Popen[bytes]", readers: dict[str, int], terminal: Terminal) -> None:
        """Pass everything on as it comes, until the guest says its status, the time is over or QEMU ends."""
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        with selectors.DefaultSelector() as selector:
            sources = {**readers, "console": process.stdout.fileno(), "qemu": process.stderr.fileno()}
            for name, source in sources.items():
                selector.register(source, selectors.EVENT_READ, name)
            if terminal.source is not None:
                selector.register(terminal.source, selectors.EVENT_READ, "keys")
            open_sources = len(sources)
            while open_sources:
                for key, _ in selector.select(0.5):
                    content = os.read(key.fd, 65536)
                    if key.data == "keys":
                        self._keys(content, process, terminal)
                        if not content:
                            selector.unregister(key.fd)
                    elif content:
                        self._take(key.data, content, terminal)
                    else:
                        selector.unregister(key.fd)
                        open_sources -= 1
                if not self._ended:
                    self._check(process)
                if self._ended and process.poll() is None:
                    process.kill()  # what the guest wrote before it said its status is in the pipes
        if not self._ended:
            self._end(LOST, self._last_words(process.wait()))
            self.final = self.up or not self._console

    def _take(self, source: str, content: bytes, terminal: Terminal) -> None:
        if source == qemu.FRAMES:
            return
        if source == "control":
            *lines, rest = (self._lines + content).split(b"\n")
            self._lines = rest[:LONGEST]
            for line in lines:
                self._say(line.decode(errors="replace"))
        elif source == "qemu":
            self._errors = (self._errors + content)[-4000:]
        else:
            if source == "console":
                self._console = (self._console + content)[-4000:]
            if source == "console" and self.up and terminal.source is not None:
                terminal.write(content)
            else:
                self.on_output(source, content)

    def _say(self, line: str) -> None:
        """A line of the guest's first process."""
        word, _, rest = line.partition(" ")
        if word in ("stage", "rxe0"):
            self.on_output("stage", (rest if word == "stage" else word).encode())
        if word == "rxe0" and not self.up:
            self.up, self.boot_seconds = True, time.monotonic() - self.watch.began
            self.watch.is_up()
        elif word == "fail" and not self._ended:
            self.final = self.said_why = True
            self._end(LOST, rest)
        elif word == "status" and not self._ended:
            if self.up and re.fullmatch(r"[0-9]{1,3}", rest) and int(rest) < 256:
                self._ended, self.status = True, int(rest)
            else:
                self.final = self.said_why = True
                self._end(LOST, f"expected a status from 0 to 255 of a command, the guest said {rest[:40]!r}")

    def _keys(self, content: bytes, process: "subprocess.Popen[bytes]", terminal: Terminal) -> None:
        if terminal.is_escape(content):
            self.final = self.said_why = True
            self._end(LOST, "ended with Ctrl-]")
        elif self.up and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # QEMU has ended: the loop is about to see it
                process.stdin.write(content)

    def _check(self, process: "subprocess.Popen[bytes]") -> None:
        over = self.watch.over(process.pid, self.up)
        if over:
            self.said_why = self.watch.is_late
            self.final = self.up or self.watch.is_late
            self._end(TIMED_OUT if self.watch.is_late else LOST, over)

    def _end(self, status: int, reason: str) -> None:
        self._ended, self.status, self.reason = True, status, reason

    def _last_words(self, returned: int) -> str:
        """Why QEMU has ended by itself: its own message, or the kernel's last lines."""
        if not self._console:
            return f"QEMU ended with status {returned}: {qemu.explain(self._errors.decode(errors='replace'))}"
        lines = [line.strip() for line in self._console.decode(errors="replace").splitlines() if line.strip()]
        panic = [line for line in lines if re.search(r"Kernel panic|Oops:|BUG:", line)]
        return f"the guest died: {(panic[:1] or lines[-1:] or ['no message'])[0][:200]}"
