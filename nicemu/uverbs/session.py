"""The endpoint of this process: the lab behind it is built at the first use, from ``configure``'s configuration.

A forked child has no lab: its endpoint leads to the parent (``fork.py``), whose modelled fork has already run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import threading
from typing import Any

from nicemu.uverbs.endpoint import Endpoint

_lock = threading.RLock()
_config: Any = None
_lab: Any = None
_endpoint: Endpoint | None = None
_forking: Endpoint | None = None
_ends: tuple[socket.socket, socket.socket] | None = None
"""While a fork is under way: the parent's end and the child's."""


def configure(config: Any) -> None:
    """Configuration of the lab that the first use will build. None: the defaults. Too late once it is built."""
    global _config
    assert _endpoint is None, "session: the lab is already open"
    _config = config


def endpoint() -> Endpoint:
    """The endpoint; builds the lab if there is none."""
    global _lab, _endpoint
    with _lock:
        if _endpoint is None:
            _lab = importlib.import_module("nicemu.lab").open(_config)
            _endpoint = _lab.endpoint
        return _endpoint


def current() -> Any:
    """The lab, None if nothing has used it."""
    return _lab


def install(new: Endpoint, lab: Any = None) -> None:
    """Use this endpoint (tests; a lab that the program built itself)."""
    global _lab, _endpoint
    _lab, _endpoint = lab, new


def reset() -> None:
    """Close the lab; the next use builds a new one."""
    global _config, _lab, _endpoint
    with _lock:
        lab, _config, _lab, _endpoint = _lab, None, None, None
    close = getattr(lab, "close", None)
    if close is not None:
        close()


def _before_fork() -> None:
    """The model's fork runs in the parent, before the real one. The engine lock is held across it."""
    global _forking, _ends
    if _endpoint is None:
        return
    _forking = _endpoint
    if not _forking.forked:
        _forking.timeline.lock.acquire()
        _forking.process.fork()
        flush = getattr(_lab, "flush", None)
        if flush is not None:
            flush()
        with contextlib.suppress(OSError):  # no descriptors: the child will find nobody
            _ends = socket.socketpair()


def _after_fork_in_parent() -> None:
    global _forking, _ends
    forking, _forking = _forking, None
    ends, _ends = _ends, None
    if forking is None or forking.forked:
        return
    if ends is not None:
        ends[1].close()
        forking.children.serve(ends[0])
    forking.timeline.lock.release()


def _after_fork_in_child() -> None:
    global _forking, _ends
    forking, _forking = _forking, None
    ends, _ends = _ends, None
    if forking is None:
        return
    if not forking.forked:
        forking.timeline.lock.release()
    if ends is not None:
        ends[0].close()
    forking.become_child(ends[1] if ends is not None else None)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
