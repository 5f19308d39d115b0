"""Shared receive queues in the driver."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import SrqType
from nicemu.driver import DriverError, srq
from nicemu.driver.srq import LIMIT, MAX_WR, Srq
from tests.driver.bench import Bench
from tests.driver.objects import Objects


def refused(bench: Bench, steps: Any) -> int | None:
    before = len(bench.device.log)
    with pytest.raises(DriverError) as caught:
        bench.call(steps)
    assert all(opcode == Command.QUERY_SRQ for opcode, _ in bench.device.log[before:]), "nothing was changed"
    return caught.value.errno


def post(queue: Srq, posted: int, taken: int) -> None:
    """What library and device say in the doorbell record."""
    struct.pack_into("<qq", queue.record.view, 0, posted, taken)


def test_creation_tells_the_device_ring_slots_and_record(bench: Bench, made: Objects) -> None:
    queue = made.srq(max_wr=100, max_sge=3)
    params = next(p for opcode, p in bench.device.log if opcode == Command.CREATE_SRQ)
    wanted = (queue.number, made.pd.number, queue.ring.address, 128, 64, queue.record.address, SrqType.BASIC, 0, 0)
    assert params[:9] == wanted
    assert len(queue.ring.view) == 128 * 64 and made.pd.users == 1
    assert (queue.max_wr, queue.max_sge) == (100, 3)


def test_an_xrc_srq_has_domain_and_cq(bench: Bench, made: Objects) -> None:
    domain = made.xrcd()
    made.xrc_srq(domain)
    params = next(p for opcode, p in bench.device.log if opcode == Command.CREATE_SRQ)
    assert params[6:9] == (SrqType.XRC, domain.number, made.cq.number)
    assert domain.users == 1 and made.cq.users == 1


@pytest.mark.parametrize("size", [(0, 1), (16385, 1), (8, 33)], ids=["no WQEs", "too many WQEs", "too many SGEs"])
def test_a_depth_that_the_device_does_not_have_is_einval(bench: Bench, made: Objects, size: tuple[int, int]) -> None:
    assert refused(bench, srq.create(made.pd, SrqType.BASIC, size)) == errno.EINVAL
    assert made.pd.users == 0


def test_kinds_and_what_they_need(bench: Bench, made: Objects) -> None:
    domain, other = made.xrcd(), Objects(bench)
    assert refused(bench, srq.create(made.pd, 7, (8, 1))) == errno.EINVAL
    assert refused(bench, srq.create(made.pd, SrqType.TM, (8, 1), matching=(1, 1))) == errno.EINVAL
    assert refused(bench, srq.create(made.pd, SrqType.XRC, (8, 1), domain)) == errno.EINVAL
    assert refused(bench, srq.create(made.pd, SrqType.XRC, (8, 1), None, made.cq)) == errno.EINVAL
    assert refused(bench, srq.create(made.pd, SrqType.XRC, (8, 1), domain, other.cq)) == errno.EINVAL
    assert domain.users == made.cq.users == 0


def test_a_refused_creation_gives_everything_back(bench: Bench, made: Objects) -> None:
    bench.device.refuse[Command.CREATE_SRQ] = Status.NO_MEMORY
    with pytest.raises(DriverError) as caught:
        made.srq()
    assert caught.value.errno == errno.ENOMEM and made.pd.users == 0 and not bench.driver.devices[0].srqs


def test_all_in_use_is_enomem(bench: Bench, made: Objects) -> None:
    bench.driver.devices[0].srq_numbers._end = 3
    made.srq(), made.srq()
    with pytest.raises(DriverError) as caught:
        made.srq()
    assert caught.value.errno == errno.ENOMEM


def test_the_limit_is_armed_by_modify_and_told_by_query(bench: Bench, made: Objects) -> None:
    queue = made.srq()
    assert bench.call(srq.query(queue)) == 0
    bench.call(srq.modify(queue, (0, 0), 7, LIMIT))
    assert bench.device.srqs[queue.number].limit == 7 and bench.call(srq.query(queue)) == 7
    bench.device.srqs[queue.number].limit = 0  # it fired
    assert bench.call(srq.query(queue)) == 0
    assert (queue.max_wr, queue.max_sge) == (8, 1), "without MAX_WR the size is not looked at"


@pytest.mark.parametrize(("limit", "mask"), [(9, LIMIT), (-1, LIMIT), (1, 4)])
def test_a_bad_limit_or_mask_is_einval(bench: Bench, made: Objects, limit: int, mask: int) -> None:
    assert refused(bench, srq.modify(made.srq(), (8, 1), limit, mask)) == errno.EINVAL


def test_resize_gives_the_device_a_new_ring(bench: Bench, made: Objects) -> None:
    queue = made.srq()
    old = queue.ring
    bench.call(srq.modify(queue, (100, 2), 0, MAX_WR))
    row = bench.device.srqs[queue.number]
    assert (row.ring, row.slots) == (queue.ring.address, 128) and queue.ring is not old
    assert (queue.max_wr, queue.max_sge, queue.slots) == (100, 2, 128)


def test_resize_within_the_ring_needs_no_command(bench: Bench, made: Objects) -> None:
    queue = made.srq(max_wr=5)
    bench.call(srq.modify(queue, (8, 1), 0, MAX_WR))
    assert queue.max_wr == 8 and Command.RESIZE_SRQ not in [opcode for opcode, _ in bench.device.log]


def test_resize_keeps_room_for_what_is_posted(bench: Bench, made: Objects) -> None:
    queue = made.srq(max_wr=16)
    post(queue, 110, 100)
    assert refused(bench, srq.modify(queue, (9, 1), 0, MAX_WR)) == errno.EINVAL
    bench.call(srq.modify(queue, (10, 1), 0, MAX_WR))
    assert queue.max_wr == 10


def test_resize_above_the_device_below_the_limit_or_with_long_wqes_is_einval(bench: Bench, made: Objects) -> None:
    queue = made.srq(max_wr=8, max_sge=1)
    bench.call(srq.modify(queue, (0, 0), 6, LIMIT))
    for size in ((16385, 1), (5, 1), (8, 4)):
        assert refused(bench, srq.modify(queue, size, 0, MAX_WR)) == errno.EINVAL
    assert (queue.max_wr, queue.max_sge) == (8, 1)


def test_a_resize_that_the_device_refuses_changes_nothing(bench: Bench, made: Objects) -> None:
    queue = made.srq()
    bench.device.refuse[Command.RESIZE_SRQ] = Status.BAD_PARAM
    ring = queue.ring
    with pytest.raises(DriverError) as caught:
        bench.call(srq.modify(queue, (100, 1), 0, MAX_WR))
    assert caught.value.errno == errno.EINVAL and queue.ring is ring and queue.max_wr == 8


def test_a_used_srq_is_busy(bench: Bench, made: Objects) -> None:
    queue = made.srq()
    pair = made.qp(shared=queue)
    with pytest.raises(DriverError) as caught:
        bench.call(srq.destroy(queue))
    assert caught.value.errno == errno.EBUSY and bench.device.srqs
    from nicemu.driver import qp

    bench.call(qp.destroy(pair))
    bench.call(srq.destroy(queue))
    assert not bench.device.srqs and made.pd.users == 0
