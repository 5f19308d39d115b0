"""The command queue: statuses, when commands take effect, draining."""

import pytest

from nicemu.abi.command import QP_CONTEXT, Command, QpField, Status
from nicemu.abi.rings import Eqn
from nicemu.abi.verbs import QpAttrMask, QpState
from tests.nic.conftest import connected
from tests.nic.testbench import ALL, Bench, WrOpcode

BAD, PARAM = Status.BAD_RESOURCE, Status.BAD_PARAM
WRONG_INDEX = [0, -1, 65536, 1 << 40, -(1 << 62)]


def test_nop(bench):
    bench.command(Command.NOP)


@pytest.mark.parametrize("opcode", [27, 99, 2**32 - 1])
def test_unknown_opcodes(bench, opcode):
    bench.submit(opcode)
    assert bench.completion() == Status.BAD_OPCODE


@pytest.mark.parametrize(
    "command",
    [
        Command.CREATE_MKEY,
        Command.DESTROY_MKEY,
        Command.CREATE_CQ,
        Command.DESTROY_CQ,
        Command.CREATE_QP,
        Command.MODIFY_QP,
        Command.QUERY_QP,
        Command.DESTROY_QP,
        Command.UPDATE_MTT,
        Command.ZAP_MTT,
    ],
)
@pytest.mark.parametrize("index", WRONG_INDEX)
def test_numbers_outside_the_nics_slice(bench, command, index):
    before = bench.world.qp[0].copy()
    bench.command(command, index, expect=BAD)
    assert bench.world.qp[0] == before and bench.world.control[0].trap == 0


@pytest.mark.parametrize(
    "command",
    [
        Command.DESTROY_MKEY,
        Command.DESTROY_CQ,
        Command.MODIFY_QP,
        Command.QUERY_QP,
        Command.DESTROY_QP,
        Command.UPDATE_MTT,
        Command.ZAP_MTT,
    ],
)
def test_objects_that_do_not_exist(bench, command):
    bench.command(command, 77, expect=BAD)


def test_numbers_in_use_cannot_be_created_again(rc):
    rc.bench.command(Command.CREATE_MKEY, rc.local.index, rc.local.key, expect=BAD)
    rc.bench.command(Command.CREATE_CQ, rc.a.cq.number, expect=BAD)
    rc.bench.command(Command.CREATE_QP, rc.a.number, expect=BAD)


def test_numbers_can_be_used_again_after_destruction(rc):
    rc.bench.command(Command.DESTROY_MKEY, rc.local.index)
    rc.bench.command(Command.DESTROY_MKEY, rc.local.index, expect=BAD)
    rc.bench.command(Command.CREATE_MKEY, rc.local.index, rc.local.index << 8 | 2, 1, rc.local.va, 16384, ALL, 1, 5)
    rc.bench.command(Command.DESTROY_QP, rc.a.number)
    rc.bench.command(Command.DESTROY_QP, rc.a.number, expect=BAD)


@pytest.mark.parametrize("first, pages", [(0, 5), (4, 1), (-1, 1), (1 << 40, 1), (0, -1), (3, 1 << 60)])
@pytest.mark.parametrize("command", [Command.UPDATE_MTT, Command.ZAP_MTT])
def test_page_ranges_outside_the_region(rc, command, first, pages):
    rc.bench.command(command, rc.local.index, first, pages, expect=PARAM)
    rc.write(1, 16384)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data == rc.local.data


@pytest.mark.parametrize("token", [-1, 0, 1 << 40])
def test_fault_tokens_of_nobody(bench, token):
    bench.command(Command.PAGE_FAULT_RESUME, token, 0, expect=BAD)
    assert bench.world.control[0].trap == 0


def test_resuming_what_is_not_suspended_does_nothing(rc):
    for token in range(int(rc.bench.device.row.qp_base) * 4, int(rc.bench.device.row.qp_base) * 4 + 20):
        rc.bench.resume(token, error=1)
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.bench.device.row.resumes == 0


def test_an_mtt_update_takes_effect_when_it_completes(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.local.map()
    rc.local.zap(0, 4)
    bench.submit(Command.UPDATE_MTT, rc.local.index, 0, 4)
    mkey = bench.world.mkey[int(bench.device.row.mkey_base) + rc.local.index]
    while not (done := bench.events(Eqn.COMMAND)):
        assert mkey.pages_mapped == 0
        assert bench.engine_step()
    assert done[0][3] == Status.OK and mkey.pages_mapped == 4


def test_a_zap_takes_effect_when_it_is_decoded_and_completes_later(rc):
    bench = rc.bench
    mkey = bench.world.mkey[int(bench.device.row.mkey_base) + rc.local.index]
    bench.submit(Command.ZAP_MTT, rc.local.index, 1, 2)
    cleared = None
    while not bench.events(Eqn.COMMAND):
        assert bench.engine_step()
        if cleared is None and mkey.pages_mapped == 2:
            cleared = bench.world.now
    assert cleared is not None and bench.world.now - cleared >= bench.device.row.zap_ns


def test_zapping_nothing_is_harmless(rc):
    rc.local.zap(0, 4)
    rc.local.zap(0, 4)
    rc.local.zap(2, 0)
    assert rc.bench.device.row.zaps == 3


def drained(rc, at_step):
    """Zap the remote region while a WRITE to it is on its way; (zap completed, last DMA moved) in ns."""
    bench = rc.bench
    bench.log()
    rc.write(1, 16384)
    bench.run_for(at_step)
    bench.submit(Command.ZAP_MTT, rc.remote.index, 0, 4)
    while not bench.events(Eqn.COMMAND):
        assert bench.engine_step()
    done = [time for kind, time, a, *_ in bench.trace() if kind.name == "COMMAND_DONE" and a == Command.ZAP_MTT]
    moved = [t for kind, t, a, b, c, d in bench.trace() if kind.name == "DMA" and (a, d) == (rc.remote.index, 1)]
    return done[0], max(moved, default=0)


@pytest.mark.parametrize("at_step", range(0, 6000, 300))
def test_a_zap_completes_only_after_every_dma_translated_before_has_moved(at_step):
    """With a zap that costs nothing, draining is all it waits for."""
    bench = Bench()
    rc = connected(bench, RETRY_CNT=0)
    bench.device.row.zap_ns = bench.device.row.zap_page_ns = 0
    done, moved = drained(rc, at_step)
    assert moved <= done
    bench.run_for(2_000_000)
    assert bench.world.control[0].violations == 0


def test_destroying_a_region_drains_like_a_zap(rc):
    bench = rc.bench
    rc.write(1, 16384)
    bench.run_for(2500)
    bench.log()
    bench.submit(Command.DESTROY_MKEY, rc.remote.index)
    while not bench.events(Eqn.COMMAND):
        assert bench.engine_step()
    done = bench.world.now
    bench.run()
    assert all(
        t <= done for kind, t, a, b, c, d in bench.trace() if kind.name == "DMA" and (a, d) == (rc.remote.index, 1)
    )


@pytest.mark.parametrize("at_step", range(0, 6000, 300))
def test_a_qp_that_was_moved_to_error_writes_nothing_more(at_step):
    bench = Bench()
    rc = connected(bench, RETRY_CNT=0)
    bench.log()
    rc.write(1, 16384)
    bench.run_for(at_step)
    rc.b.modify(QpAttrMask.STATE, STATE=QpState.ERR)
    done = bench.world.now
    bench.run()
    writes = [t for kind, t, a, *_, d in bench.trace() if kind.name == "DMA" and (a, d) == (rc.remote.index, 1)]
    assert max(writes, default=0) <= done


def test_modify_writes_only_the_attributes_of_the_mask_and_query_reads_them_back(rc):
    rc.a.modify(QpAttrMask.TIMEOUT | QpAttrMask.MIN_RNR_TIMER, TIMEOUT=9, RETRY_CNT=1, MIN_RNR_TIMER=3)
    rc.bench.command(Command.QUERY_QP, rc.a.number)
    words = QP_CONTEXT.unpack(bytes(rc.bench.mailbox[: QP_CONTEXT.size]))
    assert (words[QpField.TIMEOUT], words[QpField.RETRY_CNT], words[QpField.MIN_RNR_TIMER]) == (9, 7, 3)
    assert words[QpField.STATE] == QpState.RTS and words[QpField.DEST_QPN] == rc.b.number


@pytest.mark.parametrize("mtu", [0, 6, -1, 1 << 20])
def test_an_impossible_mtu_is_refused_and_changes_nothing(rc, mtu):
    rc.bench.mailbox[: QP_CONTEXT.size] = 0
    words = [0] * len(QpField)
    words[QpField.PATH_MTU], words[QpField.TIMEOUT] = mtu, 3
    import numpy as np

    rc.bench.mailbox[: QP_CONTEXT.size] = np.frombuffer(QP_CONTEXT.pack(*words), np.uint8)
    mask = QpAttrMask.PATH_MTU | QpAttrMask.TIMEOUT
    rc.bench.command(Command.MODIFY_QP, rc.a.number, mask, expect=PARAM)
    assert rc.a.row().mtu == 1024 and rc.a.row().timeout == 14


def test_commands_complete_in_order_of_their_end(rc):
    """A NOP behind a zap overtakes it: slots, not order, name completions."""
    rc.bench.submit(Command.ZAP_MTT, rc.local.index, 0, 4, slot=0)
    rc.bench.submit(Command.NOP, slot=1)
    rc.bench.run_for(100_000)
    assert [words[2] for words in rc.bench.events(Eqn.COMMAND)] == [1, 0]


def test_a_mapping_read_only_is_upgraded_by_an_update(rc):
    rc.local.map(write=False)
    rc.a.post_send(1, WrOpcode.RDMA_READ, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    fault = rc.bench.fault()
    rc.local.map(write=True)
    rc.bench.resume(fault["token"])
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]
