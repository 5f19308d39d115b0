"""The fork server: one process with the engine loaded and the tests imported, which forks for each test.

`python -m nicemu.cli.conformance.server SOCKET JOB`: SOCKET is the number of an inherited stream socket, JOB a JSON
object: `folder` with the tests, `programs` folder for the stand-ins, `config` and `overrides` of the lab, `seed`.
Messages are JSON objects, one a line. The first one tells what this server is, or `error`. A request names `test`,
`scratch` folder and `limit` in seconds; the answer to it has `test`, `seconds` and the `code` with which the process
ended (minus the signal's number if one killed it; null: the limit was reached).

No lab is open when it forks: each test's process builds its own.
"""

import contextlib
import gc
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicemu.cli.conformance import child, privileges
from nicemu.cli.ending import die_with_parent


@dataclass(frozen=True)
class Running:
    """A test's process."""

    test: str
    began: float
    deadline: float


class Server:
    """Forks on request and tells how each process ended."""

    def __init__(self, channel: socket.socket, seed: int) -> None:
        self.channel, self.seed = channel, seed
        self.running: dict[int, Running] = {}
        self._received = b""
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the other end hangs up."""
        while True:
            next_deadline = min((each.deadline for each in self.running.values()), default=None)
            timeout = None if next_deadline is None else max(next_deadline - time.monotonic(), 0)
            ready = [key.fileobj for key, _ in self._selector.select(timeout)]
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            self._reap()
            self._expire()
            if self.channel in ready and not self._take_requests():
                for pid in self.running:
                    _kill_group(pid)
                return

    def send(self, **message: Any) -> None:
        """Answer."""
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def _take_requests(self) -> bool:
        data = self.channel.recv(65536)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._start(**json.loads(line))
        return bool(data)

    def _start(self, test: str, scratch: str, limit: float) -> None:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent()
                for each in (self.channel, self._woken, self._wake, self._selector):
                    each.close()
                child.run(Path(scratch), test, self.seed)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        self.running[pid] = Running(test, began, began + limit)

    def _reap(self) -> None:
        for pid in list(self.running):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                self._finish(pid, timed_out=False)

    def _expire(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, each in self.running.items() if each.deadline <= now]:
            self._finish(pid, timed_out=True)

    def _finish(self, pid: int, timed_out: bool) -> None:
        """Kill what is left of its group, before its number can be used again, and tell."""
        _kill_group(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        each = self.running.pop(pid)
        self.send(test=each.test, seconds=time.monotonic() - each.began, code=None if timed_out else code)


def _kill_group(pid: int) -> None:
    """The group, or the process alone if it was not yet its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def warm_up(folder: str, programs: str, config: str | None, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """Load engine and tests; what is told of the device. The lab that this opens is closed again."""
    from nicemu.cli.conformance import suite
    from nicemu.config import load_config
    from nicemu.nic.cold_start import compile_all
    from nicemu.uverbs import session

    compile_all()  # not on some test's time
    checked = load_config(config, overrides)
    session.configure(checked)
    device = _device()
    session.reset()
    session.configure(checked)
    random.seed(seed)
    suite.install(Path(folder), Path(programs), device["names"])
    suite.import_all(Path(folder))
    gc.collect()
    gc.freeze()
    return device


def _device() -> dict[str, Any]:
    from nicemu.pyverbs.device import Context, get_device_list

    names = [device.name.decode() for device in get_device_list()]
    with Context(name=names[0]) as context:
        attributes = context.query_device()
    return {
        "names": names,
        "fw_version": attributes.fw_version,
        "vendor_id": attributes.vendor_id,
        "vendor_part_id": attributes.vendor_part_id,
    }


def main(channel: socket.socket, job: dict[str, Any]) -> None:
    server = Server(channel, job["seed"])
    try:
        runs_as = privileges.become_root()
        die_with_parent()
        device = warm_up(**job)
    except BaseException as error:
        server.send(error=f"{type(error).__name__}: {error}", detail=traceback.format_exc())
        return
    server.send(runs_as=runs_as, device=device)
    server.serve()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
