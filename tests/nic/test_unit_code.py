"""Units that are compiled when they are first used: by whom ever, wherever from, once, and nobody else notices."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicemu import _jit
from nicemu._jit import object_code
from nicemu.nic import cold_start, unit_code
from nicemu.tables import units
from nicemu.tables.records import Trap
from nicemu.tables.rows import vector
from nicemu.tables.world import Capacity, World

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="about compiled code")
ROOT = Path(__file__).parents[2]
INNER, OUTER = units.ACK, units.PAUSE


def difference(world, a, b):
    return a - b


def twice_the_difference(world, a, b):
    return 2 * _jit.call(vector(world, INNER).address, world, a, b)


def no_kernel(world, a, b):
    return open(a)


@_jit.entry("int64(int64, int64, int64, int64)")
def use(world, number, a, b):
    return _jit.call(vector(world, number).address, world, a, b)


@pytest.fixture(scope="module", autouse=True)
def _entry_is_compiled() -> None:
    use.load()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose engine has two units, and a cache that has none."""
    monkeypatch.setenv("NICEMU_CACHE", str(tmp_path))
    monkeypatch.setattr(unit_code, "UNITS", {INNER: difference, OUTER: twice_the_difference})
    monkeypatch.setattr(unit_code, "_loaded", {})
    monkeypatch.setattr(_jit, "_installed", {})
    world = World(Capacity())
    yield world
    world.close()


def power_up(world: World) -> None:
    for number, address in unit_code.load_units().items():
        world.vector[number].address = address


def test_a_unit_is_compiled_when_it_is_first_used(world: World, capfd: pytest.CaptureFixture[str]):
    power_up(world)
    assert capfd.readouterr().err == "" and unit_code.code_text().endswith(", 2 units not needed yet")
    stub = int(world.vector[INNER].address)
    assert use(world.address, INNER, 7, 2) == 5
    assert capfd.readouterr().err == "nicemu: ACK is used for the first time: compiling it\n"
    assert world.vector[INNER].address not in (0, stub) and unit_code.code_text().endswith(", 1 unit not needed yet")
    assert use(world.address, INNER, -7, 2) == -9
    assert capfd.readouterr().err == ""


def test_a_unit_may_use_another_for_the_first_time(world: World, capfd: pytest.CaptureFixture[str]):
    power_up(world)
    assert use(world.address, OUTER, 7, 2) == 10
    assert capfd.readouterr().err.count("for the first time") == 2
    assert "not needed yet" not in unit_code.code_text()


def test_another_world_and_another_process_find_it(world: World, capfd, monkeypatch: pytest.MonkeyPatch):
    power_up(world)
    other = World(Capacity())
    power_up(other)
    assert use(world.address, INNER, 7, 2) == use(other.address, INNER, 7, 2) == 5
    assert world.vector[INNER].address == other.vector[INNER].address
    other.close()
    monkeypatch.setattr(unit_code, "_loaded", {})
    assert unit_code.missing() == [OUTER]
    assert unit_code.load_units()[INNER] == world.vector[INNER].address
    assert capfd.readouterr().err.count("for the first time") == 1


def test_two_processes_compile_it_once(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    power_up(world)
    children = [in_child(lambda: use(world.address, INNER, 7, 2) == 5) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert capfd.readouterr().err.count("for the first time") == 1
    assert unit_code.missing() == [OUTER] and not list(tmp_path.rglob("*.part"))
    assert use(world.address, INNER, 7, 2) == 5


def in_child(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return child


def test_a_cache_that_cannot_be_written_costs_only_time(world: World, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("NICEMU_CACHE", "/proc/nicemu")
    power_up(world)
    assert use(world.address, OUTER, 7, 2) == use(world.address, OUTER, 7, 2) == 10
    assert capfd.readouterr().err.count("for the first time") == 2


class Late(Exception):
    """What a handler raises."""


def test_what_a_signal_handler_raises_comes_after_the_unit(world: World, monkeypatch: pytest.MonkeyPatch, capfd):
    def late(number, frame):
        raise Late

    def interrupted(number: int) -> int:
        signal.raise_signal(signal.SIGALRM)
        return compiled(number)

    compiled = unit_code._compiled
    monkeypatch.setattr(unit_code, "_compiled", interrupted)
    power_up(world)
    before, answer = signal.signal(signal.SIGALRM, late), 0
    try:
        with pytest.raises(Late):
            answer = use(world.address, INNER, 7, 2)
            time.sleep(10)
        assert answer == 5 and signal.getsignal(signal.SIGALRM) is late
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_unit_that_cannot_be_compiled_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setitem(unit_code.UNITS, INNER, no_kernel)
    power_up(world)
    assert use(world.address, INNER, 7, 2) == 0
    assert (world.control[0].trap, world.control[0].trap_row) == (Trap.BAD_UNIT, INNER)
    assert "TypingError" in capfd.readouterr().err
    with pytest.raises(Exception, match="BAD_UNIT: row"):
        raise world.trap_error()


def test_a_cold_start_compiles_what_most_programs_need(world: World, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[int]] = []
    monkeypatch.setattr(unit_code, "UNITS", dict.fromkeys(cold_start.UNITS, difference))
    monkeypatch.setattr(cold_start, "_compile", lambda numbers, say: asked.append(numbers))
    cold_start.compile_cold(print)
    cold_start.compile_all(print)
    assert asked[0] == list(cold_start.FIRST)
    assert asked[1][: len(asked[0])] == asked[0] and sorted(asked[1]) == sorted(cold_start.UNITS)
    _jit.install(difference)
    cold_start.compile_all(print)
    assert len(asked) == 2
    assert object_code.has_unit(difference)


def test_the_history_does_not_see_it(tmp_path: Path):
    """A program with all it needs in the cache, with a cache that lacks units, and again."""
    ours = _jit.cache_root()
    cold_start.compile_cold()
    for folder in (ours / _jit.kernel_digest(), *ours.glob("firmware-*")):
        shutil.copytree(folder, tmp_path / folder.name, copy_function=os.symlink)
    lacking = ("link_send", "start")
    whole = run_example(tmp_path, tmp_path / "whole.txt")
    for name in lacking:
        (file,) = (tmp_path / _jit.kernel_digest()).glob(f"nicemu.fabric.link.{name}-*.o")
        file.unlink()
    first, second = (run_example(tmp_path, tmp_path / f"{number}.txt") for number in (1, 2))
    assert first[:2] == second[:2] == whole[:2]
    assert first[2].count("is used for the first time") == len(lacking) and not second[2]


def run_example(cache: Path, trace: Path) -> tuple[str, str, str]:
    """What the example prints, its event log, and what it says besides."""
    program = ["--config", "lossy", "--trace", str(trace), "examples/odp_pingpong.py"]
    command = [sys.executable, "-m", "nicemu", "run", *program]
    environment = os.environ | {"NICEMU_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=ROOT, env=environment)
    return done.stdout, trace.read_text(), done.stderr
