"""The backup ring: UC messages and WRITEs that hit a missing page wait for it (Lesokhin et al., ASPLOS'17)."""

from __future__ import annotations

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import FaultType
from nicemu.abi.verbs import QpState, WcOpcode
from tests.nic.backup_ends import Uc, cold, in_ring, ring, ring_bench, serve
from tests.nic.testbench import WrOpcode, pair


@pytest.fixture
def uc() -> Uc:
    """UC QPs on a NIC with a backup ring."""
    return Uc(ring_bench())


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_uc_message_survives_a_fault_in_any_of_its_packets(uc, missing):
    """Sixteen packets of 1024 bytes in four pages, one of them missing."""
    uc.cold.map()
    uc.cold.zap(missing, 1)
    uc.b.post_recv(5, uc.cold.sge())
    uc.send(1, 16384)
    fault = uc.bench.fault()
    assert (fault["va"], fault["committed"]) == (uc.cold.va + 4096 * missing, 4096 * missing)
    uc.bench.run_for(1_000_000)
    assert in_ring(uc.bench) == 16 - 4 * missing
    uc.cold.map(missing, 1)
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert [(c["wr_id"], c["status"], c["byte_len"]) for c in uc.b.cq.poll()] == [(5, 0, 16384)]
    assert uc.cold.data == uc.local.data
    assert ring(uc.bench)["discards"] == 0


def test_every_page_of_a_uc_message_may_be_missing(uc):
    uc.b.post_recv(5, uc.cold.sge())
    uc.send(1, 16384)
    assert serve(uc.bench, uc.cold) == 4
    assert uc.b.statuses() == [(5, 0)] and uc.cold.data == uc.local.data


def test_a_uc_write_waits_as_well_and_with_it_what_comes_behind(uc):
    uc.b.post_recv(5)
    uc.write(1, 8192, uc.cold)
    uc.write(2, 16, uc.warm, opcode=WrOpcode.RDMA_WRITE_WITH_IMM, imm=7)
    fault = uc.bench.fault()
    assert (fault["type"], fault["va"], fault["last"]) == (FaultType.RESPONDER_RDMA, uc.cold.va, 8192)
    assert uc.b.cq.poll() == []
    uc.cold.map()
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert [(c["opcode"], c["imm"]) for c in uc.b.cq.poll()] == [(WcOpcode.RECV_RDMA_WITH_IMM, 7)]
    assert uc.cold.data[:8192] == uc.local.data[:8192] and uc.warm.data[:16] == uc.local.data[:16]


def test_a_uc_write_whose_region_is_gone_is_dropped_alone(uc):
    uc.write(1, 3000, uc.cold)
    uc.write(2, 16, uc.warm)
    fault = uc.bench.fault()
    uc.bench.command(Command.DESTROY_MKEY, uc.cold.index)
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert uc.warm.data[:16] == uc.local.data[:16] and uc.b.row().state == QpState.RTS
    assert ring(uc.bench) == dict(packets=4, delivered=1, discards=3, drops=0)


def test_a_uc_write_whose_fault_cannot_be_resolved_is_dropped_alone(uc):
    uc.write(1, 3000, uc.cold)
    uc.write(2, 16, uc.warm)
    uc.bench.resume(uc.bench.fault()["token"], error=1)
    uc.bench.run()
    assert uc.warm.data[:16] == uc.local.data[:16] and uc.b.row().state == QpState.RTS
    assert ring(uc.bench)["discards"] == 3


def test_a_full_ring_costs_uc_the_message_and_not_the_next():
    uc = Uc(ring_bench(entries=3))
    for wr_id in range(2):
        uc.b.post_recv(wr_id, uc.cold.sge(8192, 8192 * wr_id))
    uc.send(1, 5000)
    serve(uc.bench, uc.cold)
    assert uc.b.statuses() == [] and ring(uc.bench)["drops"] == 2
    uc.send(2, 2000)
    serve(uc.bench, uc.cold)
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(0, 2000)]
    assert uc.cold.data[:2000] == uc.local.data[:2000]


def test_an_rc_qp_of_the_same_nic_never_uses_the_ring():
    bench = ring_bench()
    a, _ = pair(bench)
    local, remote = bench.mr(4), cold(bench)
    local.fill(1)
    a.post_send(1, WrOpcode.RDMA_WRITE, local.sge(), remote=remote.va, rkey=remote.key)
    serve(bench, remote)
    assert a.statuses() == [(1, 0)] and remote.data == local.data
    assert bench.device.row.rnr_naks_sent > 0 and ring(bench)["packets"] == 0
