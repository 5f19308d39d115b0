"""Where runs are done: in this process, in a pool of processes, or on a Dask cluster. Results come as they finish."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nicemu.config.errors import ConfigError
from nicemu.experiment.task import Task, missing

LOCAL = "local"
LOCAL_WORKERS = 2
Finished = Iterator[tuple[Task, Any]]
"""Tasks with their ``run_one.Result``."""


class WorkerLost(Exception):
    """A process of the pool is gone: what it ran is not finished."""


def cores() -> int:
    """Processors that this process may use."""
    return max(len(os.sched_getaffinity(0)), 1)


def here(tasks: list[Task]) -> Finished:
    """One after the other in this process."""
    from nicemu.experiment.run_one import run

    for task in tasks:
        yield task, run(task)


def processes(tasks: list[Task], count: int) -> Finished:
    """In ``count`` processes, each of which loads the engine once. Raises WorkerLost."""
    from nicemu.nic.cold_start import compile_cold

    compile_cold()  # once, before each process would do it for itself
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(count, context, _warm)
    try:
        running = {pool.submit(_run, task): task for task in tasks}
        for done in concurrent.futures.as_completed(running):
            yield running[done], done.result()
    except BrokenProcessPool as error:
        raise WorkerLost("a process of the pool was killed; finished runs are kept") from error
    except BaseException:  # Ctrl-C: what is under way is given up
        with _uninterrupted():
            for process in multiprocessing.active_children():
                process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C leaves no process behind. Only the main thread hears of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _warm() -> None:
    """A process of the pool begins: the terminal's Ctrl-C is the parent's business, the engine is loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import nicemu.experiment.run_one  # noqa: F401


def _run(task: Task) -> Any:
    from nicemu.experiment.run_one import run

    return run(task)


def dask(tasks: list[Task], address: str) -> Finished:
    """On a Dask cluster; ``local``: on one of this machine that ends with the runs. Raises ConfigError."""
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise missing("distributed", "dask") from None
    cluster = None
    if address == LOCAL:
        from nicemu.nic.cold_start import compile_cold

        compile_cold()
        cluster = distributed.LocalCluster(LOCAL_WORKERS, threads_per_worker=1, dashboard_address=None)
    try:
        client = distributed.Client(cluster or address, timeout=10)
    except (OSError, ValueError) as error:
        expected = "local or the address of a Dask scheduler (tcp://HOST:PORT) that answers"
        raise ConfigError(f"command line: field --scheduler: expected {expected}, given {address!r}: {error}") from None
    try:
        running = {client.submit(_run, task, pure=False): task for task in tasks}
        for done, result in distributed.as_completed(list(running), with_results=True):
            yield running[done], result
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
