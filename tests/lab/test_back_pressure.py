"""A page-fault EQ of a few entries under many QPs: the driver makes room, the device posts what it held."""

import pytest

from nicemu.abi.verbs import Access, QpAttrMask, QpState
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from tests.lab.pair import REMOTE
from tests.lab.test_watchdog import post

QPS = 64
ODP = REMOTE | Access.ON_DEMAND
CAPS = m.Capabilities(1, 1, 1, 1, 0)


def connect(lab, qp, peer):
    """To RTS."""
    masks = QpAttrMask
    route = m.AddressVector(is_global=1, dgid=lab.devices[0].gids[1], sgid_index=1)
    attr = m.QpAttributes(path_mtu=3, dest_qp_num=peer.number, max_rd_atomic=1, max_dest_rd_atomic=1, min_rnr_timer=12,
                          port_num=1, qp_access_flags=REMOTE, timeout=18, retry_cnt=7, rnr_retry=7,
                          ah_attr=route)  # fmt: skip
    rtr = masks.AV | masks.PATH_MTU | masks.DEST_QPN | masks.RQ_PSN | masks.MAX_DEST_RD_ATOMIC | masks.MIN_RNR_TIMER
    for state, mask in (
        (QpState.INIT, masks.PKEY_INDEX | masks.PORT | masks.ACCESS_FLAGS),
        (QpState.RTR, rtr),
        (QpState.RTS, masks.TIMEOUT | masks.RETRY_CNT | masks.RNR_RETRY | masks.SQ_PSN | masks.MAX_QP_RD_ATOMIC),
    ):
        attr.qp_state = state
        lab.endpoint.execute(m.ModifyQp(qp.handle, attr, mask | masks.STATE))


@pytest.mark.parametrize("depth", [1, 4])
def test_64_qps_fault_at_once_through_a_tiny_event_queue_and_all_complete(depth):
    lab = Lab(load_config(None, {"nic": {"name": "tiny", "page_fault_eq_depth": depth}, "memory": "model"}))
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    pd, cq = run(m.AllocPd(context)), run(m.CreateCq(context, 2 * QPS))
    address = lab.endpoint.process.posix_memalign(2 * QPS * 4096, 4096)
    mr = run(mem.RegMr(pd, address, 2 * QPS * 4096, int(ODP), address))
    qps = [run(m.CreateQp(pd, 2, cq.handle, cq.handle, CAPS, 0)) for _ in range(QPS)]
    for qp in qps:
        connect(lab, qp, qp)
    for i, qp in enumerate(qps):
        post(lab, qp, address + 2 * i * 4096, mr)
    lab.timeline.pass_time(50_000_000)
    statuses = [cq.ring[64 * i + 24] for i in range(QPS) if cq.ring[64 * i + 60] == 1]
    assert statuses == [0] * QPS
    assert int(lab.devices[0].row.faults_held) > 0 and lab.devices[0].row.events_lost == 0
    assert lab.watchdog.lines() == []
    lab.close()
