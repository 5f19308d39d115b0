"""Fuzz runs: episodes, each a fresh world with a seed of its own, so that any of them replays alone.

An episode is ``EPISODE`` packets or WQEs. After every ``CHECK`` of them all is examined; a failure is narrowed down to
the input after which it shows, in the same episode made anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nicemu import _jit
from nicemu.abi.verbs import QpState
from nicemu.config import NicProfile
from nicemu.lab.fuzz import settle, wire, wqe
from nicemu.lab.fuzz.bench import Bench
from nicemu.lab.fuzz.dice import seed_of
from nicemu.lab.fuzz.objects import Honest, Plan, Targets, allow_local, allow_remote, dead_plans, live_plans, regions
from nicemu.lab.fuzz.tables import COUNTERS, Kind, Stuck
from nicemu.nic.cold_start import compile_all
from nicemu.tables.records import ViolationKind

EPISODE, CHECK = 100_000, 10_000
MOST_EVENTS = 200_000
"""Events that one input may cause before it counts as endless work."""
PACE_NS = {"wire": 400, "wqe": 3_000}
KERNELS = {"wire": wire.wire, "wqe": wqe.wqe}


@dataclass
class Failure:
    """An oracle that was violated, and the input after which it shows."""

    number: int
    what: str
    where: str
    first: int
    """First number of its episode."""


@dataclass
class Result:
    """A run: how many inputs, in how many seconds, what became of them, and the failure if there is one."""

    mode: str
    seed: int
    first: int
    done: int = 0
    seconds: float = 0.0
    events: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(COUNTERS, np.int64))
    failure: Failure | None = None
    history: str = ""


def profile_of(episode: int) -> NicProfile:
    """Devices differ from episode to episode: credits, coalesced ACKs, small caches."""
    profile = NicProfile()
    return profile.model_copy(
        update=dict(
            end_to_end_credits=episode % 2 == 1,
            ack_coalescing_ns=500 * (episode % 3),
            retry_cnt_7_infinite=episode % 4 == 3,
            iotlb=profile.iotlb.model_copy(update=dict(sets=(64, 4, 1)[episode % 3], ways=2)),
            costs=profile.costs.model_copy(
                update=dict(fault_detect_ns=2_000, resume_ns=1_000, zap_ns=0, zap_page_ns=0)
            ),
        )
    )


class Episode:
    """A fresh world under fire. ``run`` goes on; ``examine`` says what is wrong, or nothing."""

    def __init__(self, mode: str, seed: int, number: int) -> None:
        self.mode = mode
        self.bench = bench = Bench(profile_of(number))
        honest = Honest(bench)
        assert honest.qpn
        made = {nic: regions(bench, nic) for nic in ((1,) if mode == "wire" else (1, 2))}
        fuzz = bench.tables.fuzz[0]
        fuzz.random, fuzz.pace, fuzz.most_events = seed_of(seed, number), PACE_NS[mode], MOST_EVENTS
        fuzz.classify = int(mode == "wire")
        if mode == "wire":
            self._place_wire(made)
        else:
            self._place_wqe(made)
        bench.ram.seal(seed + number)
        self._kernel, self._settle, self._bring_up = (
            kernel.load() if _jit.JIT else kernel  # type: ignore[attr-defined]
            for kernel in (KERNELS[mode], settle.settle, settle.bring_up)
        )
        self.address = bench.world.address, bench.tables.address
        self._bring_up(*self.address, 0)

    def _place_wire(self, made: dict[int, Any]) -> None:
        """Targets on NIC 1; their peers on NIC 2 do not exist: we are they."""
        bench = self.bench
        targets = Targets(bench, 1, made[1])
        allow_remote(bench, made[1])
        for plan in live_plans():
            targets.add(plan, 2, 1000 + targets.next)
        bench.tables.fuzz[0].live = bench.tables.fuzz[0].targets
        for plan in dead_plans():
            targets.add(plan, 2, 1000 + targets.next)

    def _place_wqe(self, made: dict[int, Any]) -> None:
        """Pairs on NICs 1 and 2."""
        bench = self.bench
        mine, theirs = Targets(bench, 1, made[1]), Targets(bench, 2, made[2])
        allow_local(bench, made[1])
        allow_local(bench, made[2])
        for kind in Kind:
            peer = {Kind.XRC_INI: Kind.XRC_TGT, Kind.XRC_TGT: Kind.XRC_INI}.get(kind, kind)
            for mtu in (1, 3):
                mine.add(Plan(kind, QpState.RTS, mtu), 2, theirs.next)
                theirs.add(Plan(peer, QpState.RTS, mtu), 1, mine.next - 1)
        for kind, state in ((Kind.RC, QpState.INIT), (Kind.RC, QpState.SQD), (Kind.UD, QpState.SQE)):
            mine.add(Plan(kind, state), 2, theirs.next)
            theirs.add(Plan(kind, state), 1, mine.next - 1)
        fuzz = bench.tables.fuzz[0]
        fuzz.live = fuzz.targets
        bench.tables.target["posts"][:] = 0

    def run(self, count: int) -> int:
        """So many inputs more, fewer if the kernel gave up; how many."""
        return int(self._kernel(*self.address, count))

    def settle(self) -> None:
        """Bring all to rest and up again."""
        if not self._settle(*self.address, 0):
            self._bring_up(*self.address, 0)

    def examine(self) -> str:
        """What an oracle says, empty if all holds."""
        fuzz, control = self.bench.tables.fuzz[0], self.bench.world.control[0]
        if control.trap:
            return str(self.bench.world.trap_error())
        if fuzz.trap:
            return f"bench: table {int(fuzz.trap) - 1}: row {int(fuzz.trap_row)} out of range"
        if fuzz.stuck:
            return f"{Stuck(int(fuzz.stuck)).name.lower().replace('_', ' ')} ({int(fuzz.stuck_at)})"
        if control.violations:
            row = self.bench.world.violation[0]
            return f"DMA sanitizer: {ViolationKind(int(row.kind)).name}, mkey {int(row.mkey)} page {int(row.page)}"
        at = self.bench.ram.spoilt()
        if at >= 0:
            return f"canary: {self.place(at)} was written"
        guards = self.bench.rings.spoilt()
        return f"guard behind ring memory at offset {guards[0]} was written" if guards else ""

    def place(self, at: int) -> str:
        """A byte of RAM by region."""
        slots = self.bench.ram.frames.table.slot
        for region in self.bench.regions:
            for page, frame in enumerate(region.frames):
                if int(slots[frame]) == at // 4096:
                    return f"NIC {region.nic} region {region.name!r} (mkey {region.index}) page {page} byte {at % 4096}"
        return f"RAM byte {at}"

    def last_input(self) -> str:
        """The packet made last, for a report."""
        if self.mode != "wire":
            return ""
        row = self.bench.world.packet[int(self.bench.tables.fuzz[0].last_packet)]
        names = (
            "transport", "opcode", "psn", "source_nic", "source_qpn", "dest_qpn", "payload", "length", "va", "rkey",
            "syndrome", "imm", "srqn", "qkey", "pkey", "multicast",
        )  # fmt: skip
        return " ".join(f"{name}={int(row[name])}" for name in names)

    def history(self) -> bytes:
        """What happened, in a few bytes: clock, events, counters, memory."""
        digest = hashlib.sha256()
        control = self.bench.world.control[0]
        for word in (control.now, control.ran, control.pending, self.bench.tables.fuzz[0].random):
            digest.update(int(word).to_bytes(8, "little", signed=True))
        for device in self.bench.devices:
            digest.update(repr(sorted(device.counters().items())).encode())
        digest.update(self.bench.tables.count["count"].tobytes())
        digest.update(self.bench.ram.frames.model_bytes[: self.bench.ram.used * 4096].tobytes())
        return digest.digest()

    def close(self) -> None:
        """Forget the world."""
        self.bench.close()


def narrow(mode: str, seed: int, episode: int, good: int, bad: int) -> Failure:
    """The first input in ``good .. bad`` of an episode after which an oracle complains: ``bad`` if only rest does."""
    run = Episode(mode, seed, episode)
    for done in range(0, good, CHECK):
        run.run(min(CHECK, good - done))
        run.settle()
    what, at = run.examine(), good
    while not what and at < bad:
        at += run.run(1)
        what = run.examine()
    if not what:
        run.settle()
        what = run.examine()
    first = episode * EPISODE
    failure = Failure(first + at, what or "seen once, not reproduced", run.last_input(), first)
    run.close()
    return failure


def fuzz(
    mode: str,
    count: int | None,
    seed: int,
    seconds: float | None = None,
    first: int = 0,
    progress: Callable[[Result], None] | None = None,
) -> Result:
    """Feed ``count`` inputs, or as many as fit into ``seconds``, from number ``first`` (rounded down to an episode)."""
    episode = first // EPISODE
    result = Result(mode, seed, episode * EPISODE)
    digest = hashlib.sha256()
    compile_all()  # and the episode compiles what is cold of its own: before the clock starts
    run = Episode(mode, seed, episode)
    began = time.monotonic()
    while not result.failure and _more(result, count, seconds, began):
        done = 0
        while done < EPISODE and not result.failure and _more(result, count, seconds, began):
            want = min(CHECK, EPISODE - done, CHECK if count is None else count - result.done)
            made = run.run(want)
            run.settle()
            if run.examine():
                result.failure = narrow(mode, seed, episode, done, done + made)
            done += made
            result.done += made
            result.seconds = time.monotonic() - began
            if progress is not None:
                progress(result)
        result.events += int(run.bench.world.control[0].ran)
        result.counts += run.bench.tables.count["count"]
        digest.update(run.history())
        run.close()
        episode += 1
        if not result.failure and _more(result, count, seconds, began):
            run = Episode(mode, seed, episode)
    result.seconds = time.monotonic() - began
    result.history = digest.hexdigest()[:16]
    return result


def _more(result: Result, count: int | None, seconds: float | None, began: float) -> bool:
    """There is something left to do."""
    if count is not None and result.done >= count:
        return False
    return seconds is None or time.monotonic() - began < seconds
