"""The memory gate: random operations and DMA keep every byte right, and a stale DMA sees what it should not."""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nicemu.memory import arena as real
from nicemu.memory.frames import POISON

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / "tools" / "memory_gate.py"
PAGE = 4096
POISONED = bytes([POISON]) * 8


def gate(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """The gate in a process of its own: a crash is a status."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run([*prefix, sys.executable, str(GATE), *arguments], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, **environment})  # fmt: skip


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]


def test_random_steps_keep_every_byte() -> None:
    done = gate("random", "--steps", "20000", "--seed", "2")
    check(done)
    assert "passed: 20000 steps" in done.stdout and "seed 2" in done.stdout
    for kind in ("DMA read stale", "DMA write stale", "DMA read failed", "unmap behind our back", "fork", "pswpin"):
        assert f" {kind} " in done.stdout


@pytest.mark.slow
def test_a_million_random_steps() -> None:
    check(gate("random", "--steps", "1000000", "--seed", "3"))


def test_history_does_not_depend_on_addresses_hashes_or_environment(tmp_path: Path) -> None:
    logs = [tmp_path / f"log{i}" for i in range(4)]
    arguments = [("random", "--steps", "20000", "--log", str(log)) for log in logs]
    check(gate(*arguments[0], PYTHONHASHSEED="1"))
    check(gate(*arguments[1], PYTHONHASHSEED="2", FILLER="x" * 100_000))
    if shutil.which("setarch"):
        check(gate(*arguments[2], prefix=("setarch", "-R")))
    check(gate(*arguments[3], "--seed", "9", "--steps", "1000"))
    first, second, third, other = (log.read_text() if log.exists() else "" for log in logs)
    assert first == second and first.count("\n") > 15_000 and not first.startswith(other[:1000])
    if not shutil.which("setarch"):
        pytest.skip("no setarch: address randomisation was on in every run")
    assert first == third


def test_mismatch_names_seed_and_step(machine_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, frame: int, offset: int, data: bytes) -> bool:
        return True

    monkeypatch.setattr(machine_module.Machine, "write", broken)
    trial = machine_module.Gate(1)
    with pytest.raises(Exception, match="wrong bytes") as caught:
        for _ in range(5000):
            trial.step()
    assert type(caught.value).__name__ == "Mismatch"
    trial.machine.close()
    assert gate("random", "--steps", "nonsense").returncode == 2


def test_story() -> None:
    done = gate("stale")
    check(done)
    assert done.stdout.count("poison") == 2 and "reports an error" in done.stdout and "it leaked" in done.stdout


# A stale DMA, sanitizer off -------------------------------------------------------------------------------------------


@pytest.fixture
def machine_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``tools/memory_random.py``; its machine comes with it."""
    monkeypatch.syspath_prepend(GATE.parent)
    return importlib.import_module("memory_random")


@pytest.fixture
def machine(machine_module: Any) -> Iterator[Any]:
    made = machine_module.Machine()
    assert made.control.sanitizer == 0
    yield made
    made.close()


def test_dontneed_leaves_a_stale_dma_with_poison(machine: Any) -> None:
    at = machine.run(machine.process.malloc(PAGE))
    ctypes.memmove(at, b"program!", 8)
    frame = machine.translate(at, write=True)
    assert machine.read(frame, 0, 8) == b"program!"
    machine.run(machine.process.madvise(at, PAGE, real.MADV_DONTNEED))
    assert machine.read(frame, 0, 8) == POISONED
    assert machine.write(frame, 0, b"from NIC") and ctypes.string_at(at, 8) == bytes(8)
    assert machine.read(machine.translate(at), 0, 8) == bytes(8)


def test_munmap_through_ctypes_ends_a_stale_dma_in_an_error_or_with_a_strangers_bytes(machine: Any) -> None:
    at = real.mmap(0, PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
    ctypes.memmove(at, b"program!", 8)
    machine.mm.adopt(at, PAGE)
    frame = machine.translate(at, write=True)
    assert machine.read(frame, 0, 8) == b"program!"
    real.munmap(at, PAGE)
    assert machine.read(frame, 0, 8) is None and not machine.write(frame, 0, b"from NIC")
    real.mmap(at, PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS | real.MAP_FIXED)
    ctypes.memmove(at, b"stranger", 8)
    assert machine.read(frame, 0, 8) == b"stranger"
    real.munmap(at, PAGE)


def test_munmap_of_arena_memory_through_ctypes_is_seen_at_the_next_epoch(machine: Any) -> None:
    at = machine.run(machine.process.malloc(PAGE))
    frame = machine.translate(at, write=True)
    assert machine.read(frame, 0, 8) == bytes(8) and machine.write(frame, 0, b"from NIC")
    real.munmap(at, PAGE)
    machine.control.epoch += 1
    assert machine.read(frame, 0, 8) is None and not machine.write(frame, 0, b"from NIC")


def test_fork_leaves_a_stale_dma_without_the_parents_page(machine: Any) -> None:
    at = machine.run(machine.process.malloc(PAGE))
    ctypes.memmove(at, b"program!", 8)
    frame = machine.translate(at, write=True)
    machine.run(machine.process.fork())
    answer, question = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(question[0], 1)
        os.write(answer[1], ctypes.string_at(at, 8))
        os._exit(0)
    machine.run(machine.process.write(at, b"parent's"))  # breaks copy-on-write, in the kernel and in the model
    stale_read, stale_write = machine.read(frame, 0, 8), machine.write(frame, 0, b"from NIC")
    os.write(question[1], b"x")
    assert os.read(answer[0], 8) == b"program!"
    os.waitpid(child, 0)
    assert stale_read == POISONED and stale_write
    assert ctypes.string_at(at, 8) == b"parent's" == machine.read(machine.translate(at), 0, 8)
