"""Peers, side by side with an RC WRITE of 64 KiB and with a pyverbs program: ns-3, SimPy, htsim, soft RoCE."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nicemu.bench import native
from nicemu.bench.flow import Kind, flow
from nicemu.bench.measure import Absent, Batch, Case, Counts, Limit, Opener, Watch
from nicemu.bench.peers import simpy_flow

FOLDER = Path(simpy_flow.__file__).parent
NS3_LIBRARIES = tuple(f"-lns3-{name}" for name in ("internet", "point-to-point", "network", "core"))
NS3_PACKETS = 20_000
HTSIM = "NICEMU_HTSIM"
GUEST_S = 900
NS3, SIMPY, ROCE = "ns-3 UDP", "SimPy", "soft RoCE in a guest"


def cases() -> Iterator[Case]:
    """A flow, and a program."""
    limits = (
        Limit(NS3, "packets/s", native.reports(ns3, 4096, NS3_PACKETS)),
        Limit(SIMPY, "packets/s", _simpy),
        Limit("htsim", "packets/s", native.reports(htsim)),
    )
    yield Case("RC WRITE 64 KiB beside peers", "peers", "packets/s", flow(Kind()), limits, ("GB/s", "x real time"),
               "two hosts, 100 Gb/s, 1 us, packets of 4 KiB, payload copied in and out")  # fmt: skip
    for name, unit in (("ping-pong", "round trips/s"), ("stream", "messages/s")):
        guest = Limit(ROCE, unit, _program(name, _in_guest))
        yield Case(f"pyverbs program: {name}", "peers", unit, _program(name, _on_nicemu), (guest,), (),
                   "the same unmodified program, one device, MTU 1024", seconds=0, runs=1)  # fmt: skip


def ns3() -> Path:
    """The ns-3 program, compiled. Absent: there is no compiler, or no ns-3."""
    return native.built(FOLDER / "ns3_udp.cc", ("c++", "g++", "clang++"), NS3_LIBRARIES)


def htsim() -> Path:
    """The program of the environment. Absent: there is none."""
    given = os.environ.get(HTSIM)
    if not given:
        raise Absent(f"not given ({HTSIM}: a program that runs such a flow and reports as peers/ns3_udp.cc does)")
    return Path(given)


@contextmanager
def _simpy() -> Iterator[Batch]:
    yield simpy_flow.batch


def _program(name: str, command: Callable[[str], list[str]]) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with tempfile.TemporaryDirectory(prefix="nicemu-bench-") as folder:
            shutil.copy(FOLDER / "verbs_program.py", folder)
            line = [*command(folder), name]

            def batch(watch: Watch) -> Counts:
                try:
                    done = subprocess.run(
                        [*line, name], capture_output=True, text=True, check=False, timeout=GUEST_S, cwd=folder
                    )
                except subprocess.TimeoutExpired:
                    raise Absent(f"longer than {GUEST_S} s") from None
                return native.report(done, watch)

            yield batch

    return opener


def _on_nicemu(folder: str) -> list[str]:
    return [sys.executable, "-m", "nicemu", "run", f"{folder}/verbs_program.py"]


def _in_guest(folder: str) -> list[str]:
    """``nicemu lab rxe``. Absent: there is no QEMU."""
    if not shutil.which("qemu-system-x86_64"):
        raise Absent("no QEMU")
    return [sys.executable, "-m", "nicemu", "lab", "rxe", "--share", folder, "--", "python3", "verbs_program.py"]
