"""Scenarios made for tests, with operations that are wrong."""

from collections.abc import Callable
from typing import Any

from nicemu.check.operations import Kernel
from nicemu.check.scenario import Operation, Scenario
from nicemu.mm.locks import Mutex
from nicemu.timeline.host import Completion, Steps


def scenario(**threads: tuple[Operation, ...]) -> Scenario:
    """Threads without memory; the testbed has locks ``x`` and ``y``."""
    return Scenario("made", "made for a test", (), (), threads, before=(Kernel("locks", make_locks),))


def step(function: Callable[[Any], Steps[Any]]) -> Kernel:
    return Kernel(function.__name__, function)


def make_locks(bed: Any) -> Steps[None]:
    bed.locks = {name: Mutex(bed.lab.scheduler, name) for name in ("x", "y")}
    yield 0


def take(first: str, second: str) -> Kernel:
    def run(bed: Any) -> Steps[None]:
        me = bed.host.thread
        yield from bed.locks[first].acquire(me)
        yield 1
        yield from bed.locks[second].acquire(me)
        bed.locks[second].release(me)
        bed.locks[first].release(me)

    return Kernel(f"take {first} and {second}", run)


def wait(bed: Any) -> Steps[None]:
    yield Completion(bed.lab.scheduler, "something nobody does")


def spin(bed: Any) -> Steps[None]:
    while True:
        yield 1


def trip(bed: Any) -> Steps[None]:
    yield 1
    raise KeyError("no such row")


def quiet(bed: Any) -> Steps[None]:
    for _ in range(3):
        yield 1
