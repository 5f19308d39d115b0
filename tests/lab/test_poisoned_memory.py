"""A NIC that meets a page whose memory has failed: the errors of a page that cannot be had, on either side."""

from __future__ import annotations

import errno

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from nicemu.mm.madvise import MADV_HWPOISON, MADV_SOFT_OFFLINE
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.uverbs import session
from tests.lab.failures import lab, outcome, pair, says, write
from tests.lab.transports import End

S = WcStatus
REMOTE = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_ON_DEMAND
ERR = QpState.ERR


def poison(end: End, advice: int = MADV_HWPOISON) -> None:
    """The memory of the end's first page fails."""
    process = session.endpoint().process
    process.write(end.mr.buf, b"here")
    process.madvise(end.mr.buf, 4096, advice)


def test_a_remote_write_to_it_is_refused() -> None:
    with lab(memory="model"):
        left, right = pair(access=REMOTE)
        poison(right)
        left.qp.post_send(write(left, right))
        seen = outcome(left, right)
        assert seen["left"] == [(1, S.REM_ACCESS_ERR)] and seen["states"] == (ERR, ERR)
        assert AsyncEvent.QP_ACCESS_ERR in seen["events"][1]


def test_a_send_from_it_is_a_protection_error() -> None:
    with lab(memory="model"):
        left, right = pair(access=REMOTE)
        poison(left)
        left.qp.post_send(write(left, right))
        says(left, right, left=[(1, S.LOC_PROT_ERR)], states=(ERR, QpState.RTS))


def test_a_translation_that_the_device_had_is_taken_away() -> None:
    with lab(memory="model"):
        left, right = pair(access=REMOTE)
        left.qp.post_send(write(left, right))
        says(left, right, left=[(1, S.SUCCESS)])
        poison(right)
        left.qp.post_send(write(left, right, 2))
        assert outcome(left, right)["left"] == [(2, S.REM_ACCESS_ERR)]


def test_soft_offline_is_not_noticed() -> None:
    with lab(memory="model"):
        left, right = pair(access=REMOTE)
        poison(right, MADV_SOFT_OFFLINE)
        left.qp.post_send(write(left, right))
        says(left, right, left=[(1, S.SUCCESS)])


def test_pinned_memory_cannot_be_registered_over_it() -> None:
    with lab(memory="model"):
        left, _ = pair(access=REMOTE)
        poison(left)
        with pytest.raises(PyverbsRDMAError) as error:
            MR(left.pd, 4096, e.IBV_ACCESS_LOCAL_WRITE, left.mr.buf)
        assert error.value.error_code == errno.EFAULT
