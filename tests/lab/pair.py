"""Two connected QPs of one lab, made through the uverbs boundary."""

from nicemu.abi.verbs import Access, QpAttrMask, QpState
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m

REMOTE = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ


def connected_pair(lab, access=Access.LOCAL_WRITE):
    """Two RC QPs in RTS on one CQ, and a region: through the uverbs boundary."""
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    pd, cq = run(m.AllocPd(context)), run(m.CreateCq(context, 64))
    qps = [run(m.CreateQp(pd, 2, cq.handle, cq.handle, m.Capabilities(16, 16, 2, 2, 0), 0)) for _ in range(2)]
    vector = m.AddressVector(is_global=1, dgid=lab.devices[0].gids[1], sgid_index=1)
    for qp, peer in (qps, reversed(qps)):
        attr = m.QpAttributes(
            path_mtu=3,
            dest_qp_num=peer.number,
            max_rd_atomic=1,
            max_dest_rd_atomic=1,
            min_rnr_timer=1,
            port_num=1,
            qp_access_flags=REMOTE,
            timeout=14,
            retry_cnt=7,
            rnr_retry=7,
            ah_attr=vector,
        )
        masks = QpAttrMask
        for state, mask in (
            (QpState.INIT, masks.PKEY_INDEX | masks.PORT | masks.ACCESS_FLAGS),
            (
                QpState.RTR,
                masks.AV
                | masks.PATH_MTU
                | masks.DEST_QPN
                | masks.RQ_PSN
                | masks.MAX_DEST_RD_ATOMIC
                | masks.MIN_RNR_TIMER,
            ),
            (QpState.RTS, masks.TIMEOUT | masks.RETRY_CNT | masks.RNR_RETRY | masks.SQ_PSN | masks.MAX_QP_RD_ATOMIC),
        ):
            attr.qp_state = state
            run(m.ModifyQp(qp.handle, attr, mask | masks.STATE))
    address = lab.endpoint.process.posix_memalign(8192, 4096)
    mr = run(mem.RegMr(pd, address, 8192, int(access), address))
    return cq, qps, address, mr
