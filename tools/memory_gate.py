#!/usr/bin/env python3
"""The memory gate: what DMA into memory that may vanish does, tried at random, told as a story, and measured.

  tools/memory_gate.py stale                        why a DMA has two instants, and what a stale one sees
  tools/memory_gate.py random --steps 20000         random memory operations and DMA, every byte checked (seconds)
  tools/memory_gate.py random                       the same, a million steps (minutes)
  tools/memory_gate.py copies                       what a copy costs for each memory kind

No NIC takes part: the gate translates and moves by itself, with the mm model and the compiled copies that the NIC uses.
docs/memory.md explains the memory kinds.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from memory_machine import PAGE, Machine
from memory_random import Gate

from nicemu._jit import copy_bytes, jit
from nicemu.memory import arena as real
from nicemu.memory.copy import read_frame, write_frame
from nicemu.memory.frames import POISON
from nicemu.tables.records import FrameKind
from nicemu.tables.world import address_of, lazy_bytes

# random ---------------------------------------------------------------------------------------------------------------


def random_steps(steps: int, seed: int, log: Path | None) -> int:
    """``random``: 0 if memory stayed what it must be, 1 and a line with seed and step if not."""
    began, file = time.monotonic(), log.open("w") if log else None
    print(f"seed {seed}, {steps} steps", flush=True)
    gate = Gate(seed, file)
    try:
        for done in range(1, steps + 1):
            gate.step()
            if steps >= 20 and done % (steps // 20) == 0:
                print(f"{100 * done // steps:3} %  step {done}  {time.monotonic() - began:.1f} s", flush=True)
        gate.finish()
    except Exception as error:
        print(f"FAILED: seed {seed}, step {gate.number}: {type(error).__name__}: {error}", flush=True)
        print(f"again:  tools/memory_gate.py random --seed {seed} --steps {gate.number}", flush=True)
        return 1
    finally:
        if file:
            file.close()
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted((gate.counts + gate.machine.host.counters).items()))
    print(f"passed: {steps} steps in {time.monotonic() - began:.0f} s, seed {seed}: {counts}")
    return 0


# stale ----------------------------------------------------------------------------------------------------------------


def show(data: bytes | None) -> str:
    """Bytes for the reader."""
    if data is None:
        return "nothing: the copy reports an error"
    return "poison" if set(data) == {POISON} else repr(data.decode("latin-1"))


def say(line: str) -> None:
    """One line of the story."""
    print("  " + line)


def stale_discard(machine: Machine) -> None:
    """``madvise(DONTNEED)`` of arena memory."""
    at = machine.run(machine.process.mmap(PAGE))
    ctypes.memmove(at, b"program!", 8)
    frame = machine.translate(at, write=True)
    print("madvise(DONTNEED) of arena memory")
    say(f"in time: the DMA reads {show(machine.read(frame, 0, 8))}")
    machine.run(machine.process.madvise(at, PAGE, real.MADV_DONTNEED))
    machine.control.epoch += 1
    say(f"stale:   the DMA reads {show(machine.read(frame, 0, 8))}; the program reads {show(ctypes.string_at(at, 8))}")
    ctypes.memmove(at, b"new data", 8)
    machine.write(frame, 0, b"from NIC")
    say(f"a stale DMA wrote 'from NIC'; the program reads {show(ctypes.string_at(at, 8))}: the write is lost")


def stale_munmap(machine: Machine) -> None:
    """A real ``munmap`` that the model does not hear of."""
    at = real.mmap(0, PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
    ctypes.memmove(at, b"program!", 8)
    machine.mm.adopt(at, PAGE)
    frame = machine.translate(at, write=True)
    print("munmap through ctypes, of memory that the program mapped itself")
    say(f"in time: the DMA reads {show(machine.read(frame, 0, 8))}")
    real.munmap(at, PAGE)
    machine.control.epoch += 1
    say(
        f"stale:   the DMA reads {show(machine.read(frame, 0, 8))}; "
        f"a write gives {machine.write(frame, 0, b'from NIC')}"
    )
    real.mmap(at, PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS | real.MAP_FIXED)
    ctypes.memmove(at, b"stranger", 8)
    machine.control.epoch += 1
    say(f"something else is mapped there now: the DMA reads {show(machine.read(frame, 0, 8))}, wrong for who asked")
    machine.run(machine.process.munmap(at, PAGE))


def fork_and_write(address: int, length: int, write: Callable[[], None]) -> bytes:
    """``os.fork``; the parent writes, then the child says what it has at ``address``."""
    parent_wrote, child_reads = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(parent_wrote[0], 1)
        os.write(child_reads[1], ctypes.string_at(address, length))
        os._exit(0)
    write()
    os.write(parent_wrote[1], b"x")
    found = os.read(child_reads[0], length)
    os.waitpid(child, 0)
    for end in (*parent_wrote, *child_reads):
        os.close(end)
    return found


def stale_fork(machine: Machine) -> None:
    """``os.fork``, then the parent breaks copy-on-write."""
    at = machine.run(machine.process.mmap(PAGE))
    ctypes.memmove(at, b"program!", 8)
    frame = machine.translate(at, write=True)
    print("os.fork, then the parent writes (arena memory)")
    machine.run(machine.process.fork())
    child_has = fork_and_write(at, 8, lambda: machine.run(machine.process.write(at, b"parent's")))
    machine.control.epoch += 1
    say(f"the parent reads {show(ctypes.string_at(at, 8))}, its child {show(child_has)}: two pages now")
    say(f"stale:   the DMA reads {show(machine.read(frame, 0, 8))}")
    machine.write(frame, 0, b"from NIC")
    say(f"a stale DMA wrote 'from NIC'; the parent reads {show(ctypes.string_at(at, 8))}: the write is lost")
    stale_fork_model(machine)


def stale_fork_model(machine: Machine) -> None:
    """The same in simulated RAM, where the child's page has bytes."""
    at = machine.run(machine.process.mmap(PAGE, memory="model"))
    machine.run(machine.process.write(at, b"program!"))
    frame = machine.translate(at, write=True)
    print("fork, then the parent writes (model memory)")
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"parent's"))
    say(f"stale:   the DMA reads {show(machine.read(frame, 0, 8))}, what the child kept")
    machine.write(frame, 0, b"from NIC")
    parent, forked = (machine.run(process.read(at, 8)) for process in (machine.process, child))
    say(f"a stale DMA wrote 'from NIC'; the parent reads {show(parent)}, the child {show(forked)}: it leaked")


def stale() -> int:
    """``stale``: the story."""
    print("A DMA has two instants: translated (page -> frame), then moved. Between them the page is taken away.")
    print("The sanitizer is off: what follows is what wrong drivers and devices do to data.\n")
    machine = Machine()
    for part in (stale_discard, stale_munmap, stale_fork):
        part(machine)
    machine.close()
    return 0


# copies ---------------------------------------------------------------------------------------------------------------

SIZES = {"64 B": (64, 1), "4 KiB": (PAGE, 1), "1 MiB": (PAGE, 256)}
"""Bytes a page, pages."""
TARGET_NS = 8_000_000
"""What one round lasts, about."""


@jit
def time_reads(world, frames, buffer, length, rounds):
    """``rounds`` device reads of ``length`` bytes of each frame."""
    for _ in range(rounds):
        for i in range(len(frames)):
            read_frame(world, frames[i], 0, buffer + i * length, length)


@jit
def time_writes(world, frames, buffer, length, rounds):
    """``rounds`` device writes."""
    for _ in range(rounds):
        for i in range(len(frames)):
            write_frame(world, frames[i], 0, buffer + i * length, length)


@jit
def time_memcpy(destination, source, length, rounds):
    """``rounds`` plain copies."""
    for _ in range(rounds):
        copy_bytes(destination, source, length)


def median_ns(run: Callable[[int], None], rounds: int = 21) -> float:
    """Median ns of one turn of ``run(turns)``."""
    run(1)
    turns, taken = 1, 0
    while taken < TARGET_NS // 4:
        turns *= 2
        began = time.perf_counter_ns()
        run(turns)
        taken = time.perf_counter_ns() - began
    turns = max(1, turns * TARGET_NS // taken)
    found = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        run(turns)
        found.append((time.perf_counter_ns() - began) / turns)
    return statistics.median(found)


def frames_of(machine: Machine, kind: FrameKind, pages: int) -> np.ndarray:
    """Touched, translated pages of a kind."""
    if kind == FrameKind.PROGRAM:
        at = real.mmap(0, pages * PAGE, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
        machine.mm.adopt(at, pages * PAGE)
    else:
        at = machine.run(machine.process.mmap(pages * PAGE, memory="model" if kind == FrameKind.MODEL else "arena"))
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, b"x"))
    found: np.ndarray = machine.run(machine.mm.fault_in(at, pages, True)) >> 1
    return found


KINDS = {"arena": FrameKind.ARENA, "program-owned": FrameKind.PROGRAM, "model": FrameKind.MODEL}


def measure() -> dict[str, dict[str, float]]:
    """ns by row and column of the table."""
    machine, found = Machine(ram=4096), {}
    world, buffer, other = machine.world.address, lazy_bytes(1 << 20), lazy_bytes(1 << 20)
    to, source = address_of(buffer), address_of(other)
    frames = {kind: frames_of(machine, kind, 256) for kind in KINDS.values()}
    buffer[:] = other[:] = 1
    for size, (length, pages) in SIZES.items():
        found["memcpy", size] = median_ns(lambda n, b=length * pages: time_memcpy(to, source, b, n))
        for name, kind in KINDS.items():
            some = frames[kind][:pages]
            for verb, copy in (("read", time_reads), ("write", time_writes)):
                found[f"{name}, {verb}", size] = median_ns(
                    lambda n, copy=copy, f=some, b=length: copy(world, f, to, b, n))  # fmt: skip
    machine.close()
    return {row: {size: round(found[row, size], 1) for size in SIZES} for row in dict.fromkeys(row for row, _ in found)}


def copies(path: Path | None) -> int:
    """``copies``: the table."""
    table = measure()
    print(f"{'ns (median of 21)':24}" + "".join(f"{size:>12}" for size in SIZES))
    for row, cells in table.items():
        print(f"{row:24}" + "".join(f"{cells[size]:12,.1f}" for size in SIZES))
    if path:
        path.write_text(json.dumps({"unit": "ns", "copies": table}, indent=1) + "\n")
    return 0


# Command line ---------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser(
        "random",
        help="random memory operations and DMA against a dict of pages",
        description="Exit status 1 with seed and step if memory is not what it must be.",
    )
    one.add_argument("--steps", type=int, default=1_000_000, help="steps to make (default: 1000000)")
    one.add_argument("--seed", type=int, default=1, help="everything is drawn from it (default: 1)")
    one.add_argument("--log", type=Path, help="write a line for each step: equal for equal seeds, on any machine")
    parts.add_parser("stale", help="the story of a stale DMA, on one page")
    two = parts.add_parser("copies", help="ns of a copy by size and memory kind, beside memcpy")
    two.add_argument("--json", type=Path, help="write the table to this file as well")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    if options.part == "random":
        return random_steps(options.steps, options.seed, options.log)
    return stale() if options.part == "stale" else copies(options.json)


if __name__ == "__main__":
    sys.exit(main())
