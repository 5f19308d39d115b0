"""Posting chains of work requests, to queues of a QP and to SRQs alike."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

from nicemu.pyverbs import _kernel
from nicemu.pyverbs._queues import RecvQueue, SendQueue
from nicemu.pyverbs._tag_ops import TagQueue
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError


def post_chain(queue: SendQueue | RecvQueue | TagQueue, first: Any, show: bool = True) -> tuple[int, Any]:
    """Write a chain and show it to the device: (0, None), or (errno, the request that was refused). EOPNOTSUPP: the
    queue is that of the process that forked this one. Without `show` the device sees it with the next chain."""
    if queue.generation != _kernel.generation:
        return errno.EOPNOTSUPP, first
    wr, error = first, 0
    while wr is not None:
        error = queue.write(wr)
        if error:
            break
        wr = wr._next
    if wr is not first and show:
        queue.publish()
    return error, wr


def refuse(failure: str, error: int, refused: Any, bad_wr: Any) -> NoReturn:
    """The error of a post; `bad_wr`, if there is one, becomes a copy of the request."""
    if bad_wr is not None:
        bad_wr._become(refused)
    _kernel.last_errno = error
    raise PyverbsRDMAError(failure, error)
