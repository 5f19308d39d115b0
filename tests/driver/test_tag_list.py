"""TM-SRQs in the driver: what a creation takes and gives back, which QPs may use one."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.abi.command import Command, QpFlag, Status
from nicemu.abi.verbs import QpType, SrqType
from nicemu.config.nic_profile import TagMatchingProfile
from nicemu.driver import DriverError, qp, srq
from nicemu.driver.srq import Srq
from nicemu.uverbs.messages import Capabilities
from tests.driver.bench import Bench
from tests.driver.objects import Objects

NO_SENDS = Capabilities(0, 0, 0, 0, 0)


def create(made: Objects, matching: tuple[int, int] = (5, 10), cq: Any = None) -> Srq:
    made_srq: Srq = made.bench.call(srq.create(made.pd, SrqType.TM, (8, 1), None, cq or made.cq, matching))
    return made_srq


def code(call: Any) -> int:
    with pytest.raises(DriverError) as caught:
        call()
    return int(caught.value.errno or 0)


def test_a_destroyed_one_gives_everything_back(bench: Bench, made: Objects) -> None:
    numbers = bench.driver.devices[0].qp_numbers
    before = numbers.take()
    numbers.give(before)
    queue = create(made)
    assert made.cq.users == 1 and bench.device.tags and queue.tags is not None and queue.tags.slots == 16
    bench.call(srq.destroy(queue))
    assert made.cq.users == made.pd.users == 0 and not bench.device.tags
    assert queue.tags.qpn in (before, before + 1)


def test_a_refused_one_gives_everything_back(bench: Bench, made: Objects) -> None:
    bench.device.refuse[Command.CREATE_SRQ] = Status.NO_MEMORY
    assert code(lambda: create(made)) == errno.ENOMEM
    assert made.cq.users == made.pd.users == 0 and not bench.device.tags


def test_no_qp_number_left(bench: Bench, made: Objects) -> None:
    bench.driver.devices[0].qp_numbers._end = 0
    assert code(lambda: create(made)) == errno.ENOMEM
    assert made.cq.users == 0 and not bench.device.tags


@pytest.mark.parametrize("matching", [(0, 1), (128, 1), (1, 16385), (1, -1)])
def test_a_size_that_the_device_has_not(made: Objects, matching: tuple[int, int]) -> None:
    assert code(lambda: create(made, matching)) == errno.EINVAL


def test_a_device_without_tag_matching(bench: Bench, made: Objects) -> None:
    device = bench.driver.devices[0]
    device.profile = device.profile.model_copy(update={"tag_matching": TagMatchingProfile(max_num_tags=0)})
    assert code(lambda: create(made)) == errno.EOPNOTSUPP


def test_a_qp_without_a_send_queue_gets_one_of_the_device_s_own(bench: Bench, made: Objects) -> None:
    queue = create(made)
    pair = made.qp(shared=queue, caps=NO_SENDS)
    assert pair.rendezvous and pair.send_slots > 1 and pair.caps.max_send_wr == 0
    view, slots, _ = qp.program_send_ring(pair, pair.send_ring.view)
    assert (len(view), slots) == (0, 1), "the program sees nothing of it"
    assert not made.qp(shared=queue).rendezvous
    flags = [params[12] for opcode, params in bench.device.log if opcode == Command.CREATE_QP]
    assert flags == [QpFlag.RENDEZVOUS, 0]


@pytest.mark.parametrize("kind", [QpType.UC, QpType.UD])
def test_it_serves_rc_only(made: Objects, kind: QpType) -> None:
    queue = create(made)
    assert code(lambda: made.qp(kind, queue)) == errno.EINVAL
