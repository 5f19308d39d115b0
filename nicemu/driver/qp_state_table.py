"""The QP state table (``qp_state_table`` and ``ib_modify_qp_is_ok``, drivers/infiniband/core/verbs.c) as data.

``TABLE[(old, new)][type]`` is (required mask, optional mask); a type or a pair that is absent is no transition.
"""

from __future__ import annotations

from nicemu.abi.verbs import QpAttrMask, QpState, QpType
from nicemu.abi.verbs import QpAttrMask as A

RC, UC, UD = QpType.RC, QpType.UC, QpType.UD
RAW, XRC_INI, XRC_TGT = QpType.RAW_PACKET, QpType.XRC_SEND, QpType.XRC_RECV
RESET, INIT, RTR, RTS, SQD, SQE, ERR = QpState

NONE = A(0)
Masks = dict[QpType, tuple[QpAttrMask, QpAttrMask]]

CONNECTED = A.PKEY_INDEX | A.PORT | A.ACCESS_FLAGS
DATAGRAM = A.PKEY_INDEX | A.PORT | A.QKEY
PATH = A.AV | A.PATH_MTU | A.DEST_QPN | A.RQ_PSN
RESPONDER = PATH | A.MAX_DEST_RD_ATOMIC | A.MIN_RNR_TIMER
REQUESTER = A.TIMEOUT | A.RETRY_CNT | A.RNR_RETRY | A.SQ_PSN | A.MAX_QP_RD_ATOMIC
RTR_OPTIONS = A.ALT_PATH | A.ACCESS_FLAGS | A.PKEY_INDEX
RTS_OPTIONS = A.CUR_STATE | A.ALT_PATH | A.ACCESS_FLAGS | A.PATH_MIG_STATE
SQD_OPTIONS = A.AV | A.ALT_PATH | A.ACCESS_FLAGS | A.PKEY_INDEX | A.PATH_MIG_STATE
SQD_TIMERS = A.PORT | A.TIMEOUT | A.RETRY_CNT | A.RNR_RETRY | A.MAX_QP_RD_ATOMIC

TO_INIT: Masks = {
    UD: (DATAGRAM, NONE), RAW: (A.PORT, NONE),
    RC: (CONNECTED, NONE), UC: (CONNECTED, NONE), XRC_INI: (CONNECTED, NONE), XRC_TGT: (CONNECTED, NONE),
}  # fmt: skip
TO_RTS: Masks = {
    UD: (A.SQ_PSN, A.CUR_STATE | A.QKEY),
    UC: (A.SQ_PSN, RTS_OPTIONS),
    RC: (REQUESTER, RTS_OPTIONS | A.MIN_RNR_TIMER),
    XRC_INI: (REQUESTER, RTS_OPTIONS),
    XRC_TGT: (A.TIMEOUT | A.SQ_PSN, RTS_OPTIONS | A.MIN_RNR_TIMER),
    RAW: (NONE, A.RATE_LIMIT),
}
IN_RTS: Masks = {kind: (NONE, optional) for kind, (_, optional) in TO_RTS.items()}
ANY: Masks = dict.fromkeys(QpType, (NONE, NONE))

TABLE: dict[tuple[QpState, QpState], Masks] = {
    (RESET, INIT): TO_INIT,
    (INIT, INIT): {kind: (NONE, required) for kind, (required, _) in TO_INIT.items()},
    (INIT, RTR): {
        UD: (NONE, A.PKEY_INDEX | A.QKEY),
        UC: (PATH, RTR_OPTIONS), XRC_INI: (PATH, RTR_OPTIONS),
        RC: (RESPONDER, RTR_OPTIONS), XRC_TGT: (RESPONDER, RTR_OPTIONS),
        RAW: (NONE, NONE),
    },
    (RTR, RTS): TO_RTS,
    (RTS, RTS): IN_RTS,
    (RTS, SQD): dict.fromkeys(QpType, (NONE, A.EN_SQD_ASYNC_NOTIFY)),
    (SQD, RTS): IN_RTS,
    (SQD, SQD): {
        UD: (NONE, A.PKEY_INDEX | A.QKEY),
        UC: (NONE, SQD_OPTIONS),
        RC: (NONE, SQD_OPTIONS | SQD_TIMERS | A.MAX_DEST_RD_ATOMIC | A.MIN_RNR_TIMER),
        XRC_INI: (NONE, SQD_OPTIONS | SQD_TIMERS),
        XRC_TGT: (NONE, SQD_OPTIONS | A.PORT | A.TIMEOUT | A.MAX_DEST_RD_ATOMIC | A.MIN_RNR_TIMER),
    },
    (SQE, RTS): {UD: (NONE, A.CUR_STATE | A.QKEY), UC: (NONE, A.CUR_STATE | A.ACCESS_FLAGS)},
    **{(old, RESET): ANY for old in QpState},
    **{(old, ERR): ANY for old in QpState if old != RESET},
}  # fmt: skip

CUR_STATE_LEGAL_IN = (RTR, RTS, SQD, SQE)


def is_allowed(old: int, new: int, kind: int, mask: int) -> bool:
    """``ib_modify_qp_is_ok``: all required bits, and none beyond required, optional and STATE."""
    if mask & A.CUR_STATE and old not in CUR_STATE_LEGAL_IN:
        return False
    masks = TABLE.get((QpState(old), QpState(new)), {}).get(QpType(kind))
    if masks is None:
        return False
    required, optional = masks
    return mask & required == required and not mask & ~(required | optional | A.STATE)
