"""The way to the kernel side: the session's endpoint, and its errors as pyverbs reports them."""

from __future__ import annotations

import os
from typing import Any

from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError

last_errno = 0
"""errno of the last command that failed, as C's `errno` keeps it."""


generation = 0
"""How many forks lie between the first process and this one: objects of another generation are a parent's."""


def _after_fork_in_child() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_after_fork_in_child)


def endpoint() -> Any:
    """The running session's endpoint. The first call builds the lab."""
    from nicemu.uverbs import session  # late: it brings the engine, which compiles

    return session.endpoint()


def execute(kernel: Any, command: object, failure: str) -> Any:
    """Run one uverbs command; `failure` begins the message of the PyverbsRDMAError that a refusal becomes."""
    try:
        return kernel.execute(command)
    except OSError as error:
        raise failed(failure, error) from error


def failed(failure: str, error: OSError) -> PyverbsRDMAError:
    """The pyverbs error for a command or system call that the kernel refused."""
    global last_errno
    last_errno = error.errno if error.errno is not None else -1
    return PyverbsRDMAError(failure, last_errno)
