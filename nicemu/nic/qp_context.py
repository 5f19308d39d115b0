"""MODIFY_QP and QUERY_QP: the QP context between mailbox and row.

The driver has checked the transition against the state table; the device checks only what would break it.
"""

from nicemu._jit import call, jit, load64, store64
from nicemu.abi.command import RX_FLAGS_MASK, QpField, Status
from nicemu.abi.verbs import MTU_BYTES, QpAttrMask, QpState
from nicemu.nic.datagram import load_vector
from nicemu.nic.psn import psn_add
from nicemu.nic.qp_state import QP_STATE, reset
from nicemu.nic.send_queue import kick
from nicemu.tables import units
from nicemu.tables.rows import av, nic, qp, vector
from nicemu.tables.trace import Ev, trace

M_STATE, M_ACCESS, M_PKEY, M_PORT = 1, int(QpAttrMask.ACCESS_FLAGS), int(QpAttrMask.PKEY_INDEX), int(QpAttrMask.PORT)
M_QKEY, M_AV, M_MTU, M_TIMEOUT = int(QpAttrMask.QKEY), int(QpAttrMask.AV), int(QpAttrMask.PATH_MTU), 512
M_RETRY, M_RNR_RETRY, M_RQ_PSN = int(QpAttrMask.RETRY_CNT), int(QpAttrMask.RNR_RETRY), int(QpAttrMask.RQ_PSN)
M_RD_ATOMIC, M_MIN_RNR = int(QpAttrMask.MAX_QP_RD_ATOMIC), int(QpAttrMask.MIN_RNR_TIMER)
M_SQ_PSN, M_DEST_RD, M_DEST_QPN = int(QpAttrMask.SQ_PSN), int(QpAttrMask.MAX_DEST_RD_ATOMIC), int(QpAttrMask.DEST_QPN)
M_SQD_NOTIFY = int(QpAttrMask.EN_SQD_ASYNC_NOTIFY)
M_RATE, M_RX_FLAGS = int(QpAttrMask.RATE_LIMIT), RX_FLAGS_MASK
assert int(QpAttrMask.TIMEOUT) == M_TIMEOUT
(
    F_STATE,
    F_CUR_STATE,
    F_ACCESS,
    F_PKEY,
    F_PORT,
    F_QKEY,
    F_MTU,
    F_TIMEOUT,
    F_RETRY,
    F_RNR_RETRY,
    F_RQ_PSN,
    F_RD_ATOMIC,
    F_MIN_RNR,
    F_SQ_PSN,
    F_DEST_RD,
    F_DEST_QPN,
    F_DEST_NIC,
    F_DRAINING,
    F_SQD_NOTIFY,
    F_SGID,
    F_DGID_HIGH,
    F_DGID_LOW,
    F_FLOW_LABEL,
    F_TCLASS,
    F_HOP_LIMIT,
    F_SL,
    F_RX_FLAGS,
    F_RATE,
) = (int(field) for field in QpField)
QP_PATH = int(Ev.QP_PATH)
RESET, RTS, SQD, ERR = int(QpState.RESET), int(QpState.RTS), int(QpState.SQD), int(QpState.ERR)
BAD_PARAM, BAD_STATE, LAST_MTU = int(Status.BAD_PARAM), int(Status.BAD_STATE), max(MTU_BYTES)


@jit
def word(mailbox, field):
    """One word of a QP context."""
    return load64(mailbox + 8 * field)


@jit
def set_path(world, q, mask, mailbox):
    """Attributes of path and peer."""
    if mask & M_MTU:
        q.path_mtu = word(mailbox, F_MTU)
        q.mtu = 128 << q.path_mtu
    if mask & M_DEST_QPN:
        q.dest_qpn = word(mailbox, F_DEST_QPN) & 0xFFFFFF
    if mask & M_AV:
        q.dest_nic = word(mailbox, F_DEST_NIC)
        a = av(world, q.av)
        a.pd = q.pd
        a.dest_nic = q.dest_nic
        a.multicast = 0
        load_vector(a, mailbox + 8 * F_SGID)
    if mask & (M_AV | M_DEST_QPN):
        trace(world, QP_PATH, q.nic, q.number, q.dest_nic - 1, q.dest_qpn, q.type)
    if mask & M_RQ_PSN:
        q.epsn = word(mailbox, F_RQ_PSN) & 0xFFFFFF
        q.rx_high = psn_add(q.epsn, -1)
    if mask & M_DEST_RD:
        q.max_dest_rd_atomic = word(mailbox, F_DEST_RD)
    if mask & M_MIN_RNR:
        q.min_rnr_timer = word(mailbox, F_MIN_RNR) & 31


@jit
def set_sender(q, mask, mailbox):
    """Attributes of the requester."""
    if mask & M_TIMEOUT:
        q.timeout = word(mailbox, F_TIMEOUT) & 31
    if mask & M_RETRY:
        q.retry_cnt = word(mailbox, F_RETRY) & 7
        q.retries = q.retry_cnt
    if mask & M_RNR_RETRY:
        q.rnr_retry = word(mailbox, F_RNR_RETRY) & 7
        q.rnr_retries = q.rnr_retry
    if mask & M_RD_ATOMIC:
        q.max_rd_atomic = word(mailbox, F_RD_ATOMIC)
    if mask & M_RATE:
        q.rate_kbps = max(word(mailbox, F_RATE), 0)
        if q.rate_kbps == 0:
            q.paced_until = 0
    if mask & M_RX_FLAGS:
        q.rx_flags = word(mailbox, F_RX_FLAGS)
    if mask & M_SQ_PSN:
        q.sent_psn = word(mailbox, F_SQ_PSN) & 0xFFFFFF
        q.next_psn = q.sent_psn
        q.una_psn = q.sent_psn


@jit
def drain(world, row, notify):
    """RTS to SQD: what was started is finished; then SQ_DRAINED, if asked for (EN_SQD_ASYNC_NOTIFY)."""
    q = qp(world, row)
    q.sq_draining = 1
    q.sqd_notify = notify
    call(vector(world, units.RETIRE).address, world, row, 0)


@jit
def modify_qp(world, row, mask, mailbox):
    """Apply the attributes in ``mask`` and change state."""
    q = qp(world, row)
    if mask & M_MTU and not 1 <= word(mailbox, F_MTU) <= LAST_MTU:
        return BAD_PARAM
    if mask & M_STATE and q.state == ERR and word(mailbox, F_STATE) != ERR and word(mailbox, F_STATE) != RESET:
        return BAD_STATE
    if mask & M_ACCESS:
        q.access = word(mailbox, F_ACCESS)
    if mask & M_PKEY:
        q.pkey_index = word(mailbox, F_PKEY) & 0xFFFF
    if mask & M_PORT:
        q.port = word(mailbox, F_PORT) & 0xFF
    if mask & M_QKEY:
        q.qkey = word(mailbox, F_QKEY) & 0xFFFFFFFF
    set_path(world, q, mask, mailbox)
    set_sender(q, mask, mailbox)
    if mask & M_STATE:
        state = word(mailbox, F_STATE)
        if state == RESET:
            reset(world, row)
        elif state == ERR:
            call(vector(world, units.QP_ERROR).address, world, row, 0)
        else:
            started = q.state
            q.state = state
            if state == RTS:
                q.sq_draining = 0
                kick(world, row, nic(world, q.nic).doorbell_ns)
            elif state == SQD and started == RTS:
                drain(world, row, word(mailbox, F_SQD_NOTIFY) if mask & M_SQD_NOTIFY else 0)
        trace(world, QP_STATE, q.nic, q.number, state, 0, 0)
    return 0


@jit
def query_qp(world, row, mailbox):
    """Write the QP's context into the mailbox. PSNs are the next ones: to be sent, to come."""
    q = qp(world, row)
    store64(mailbox + 8 * F_STATE, q.state)
    store64(mailbox + 8 * F_CUR_STATE, q.state)
    store64(mailbox + 8 * F_ACCESS, q.access)
    store64(mailbox + 8 * F_PKEY, q.pkey_index)
    store64(mailbox + 8 * F_PORT, q.port)
    store64(mailbox + 8 * F_QKEY, q.qkey)
    store64(mailbox + 8 * F_MTU, q.path_mtu)
    store64(mailbox + 8 * F_TIMEOUT, q.timeout)
    store64(mailbox + 8 * F_RETRY, q.retry_cnt)
    store64(mailbox + 8 * F_RNR_RETRY, q.rnr_retry)
    store64(mailbox + 8 * F_RQ_PSN, q.epsn)
    store64(mailbox + 8 * F_RD_ATOMIC, q.max_rd_atomic)
    store64(mailbox + 8 * F_MIN_RNR, q.min_rnr_timer)
    store64(mailbox + 8 * F_SQ_PSN, q.sent_psn)
    store64(mailbox + 8 * F_DEST_RD, q.max_dest_rd_atomic)
    store64(mailbox + 8 * F_DEST_QPN, q.dest_qpn)
    store64(mailbox + 8 * F_DEST_NIC, q.dest_nic)
    store64(mailbox + 8 * F_DRAINING, q.sq_draining)
    return 0
