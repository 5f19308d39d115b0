"""Values of the verbs API that the device, the driver and the library share (libibverbs ``verbs.h``)."""

from enum import IntEnum, IntFlag


class QpState(IntEnum):
    """``ibv_qp_state``."""

    RESET, INIT, RTR, RTS, SQD, SQE, ERR = range(7)


class QpType(IntEnum):
    """``ibv_qp_type``."""

    RC, UC, UD, RAW_PACKET, XRC_SEND, XRC_RECV = 2, 3, 4, 8, 9, 10


class QpCreateFlag(IntFlag):
    """``ibv_qp_create_flags``."""

    BLOCK_SELF_MCAST_LB, SCATTER_FCS, CVLAN_STRIPPING, SOURCE_QPN, PCI_WRITE_END_PADDING = 2, 256, 512, 1024, 2048


class SrqType(IntEnum):
    """``ibv_srq_type``."""

    BASIC, XRC, TM = range(3)


class WqState(IntEnum):
    """``ibv_wq_state``."""

    RESET, RDY, ERR = range(3)


class WqAttrMask(IntFlag):
    """``ibv_wq_attr_mask``."""

    STATE, CURR_STATE, FLAGS = 1, 2, 4


class WqFlag(IntFlag):
    """``ibv_wq_flags``."""

    CVLAN_STRIPPING, SCATTER_FCS, DELAY_DROP, PCI_WRITE_END_PADDING = 1, 2, 4, 8


class RxHash(IntFlag):
    """``ibv_rx_hash_fields``."""

    SRC_IPV4, DST_IPV4, SRC_IPV6, DST_IPV6 = 1, 2, 4, 8
    SRC_PORT_TCP, DST_PORT_TCP, SRC_PORT_UDP, DST_PORT_UDP = 16, 32, 64, 128


class WrOpcode(IntEnum):
    """``ibv_wr_opcode``."""

    RDMA_WRITE, RDMA_WRITE_WITH_IMM, SEND, SEND_WITH_IMM, RDMA_READ, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD = range(7)
    LOCAL_INV, BIND_MW, SEND_WITH_INV, TSO, DRIVER1 = 7, 8, 9, 10, 11
    FLUSH, ATOMIC_WRITE = 14, 15


class SendFlag(IntEnum):
    """``ibv_send_flags``: bits of a send WQE's flags word."""

    FENCE, SIGNALED, SOLICITED, INLINE, IP_CSUM = 1, 2, 4, 8, 16


class WcStatus(IntEnum):
    """``ibv_wc_status``."""

    SUCCESS, LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_EEC_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR, MW_BIND_ERR = range(7)
    BAD_RESP_ERR = 7
    LOC_ACCESS_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, RETRY_EXC_ERR, RNR_RETRY_EXC_ERR = range(8, 14)
    LOC_RDD_VIOL_ERR, REM_INV_RD_REQ_ERR, REM_ABORT_ERR, INV_EECN_ERR, INV_EEC_STATE_ERR, FATAL_ERR = range(14, 20)
    RESP_TIMEOUT_ERR, GENERAL_ERR, TM_ERR, TM_RNDV_INCOMPLETE = range(20, 24)


class WcOpcode(IntEnum):
    """``ibv_wc_opcode``."""

    SEND, RDMA_WRITE, RDMA_READ, COMP_SWAP, FETCH_ADD, BIND_MW, LOCAL_INV, TSO, FLUSH, ATOMIC_WRITE = range(10)
    RECV, RECV_RDMA_WITH_IMM, TM_ADD, TM_DEL, TM_SYNC, TM_RECV, TM_NO_TAG = range(128, 135)


class WcFlag(IntEnum):
    """``ibv_wc_flags``."""

    GRH, WITH_IMM, IP_CSUM_OK, WITH_INV, TM_SYNC_REQ, TM_MATCH, TM_DATA_VALID = 1, 2, 4, 8, 16, 32, 64


class Access(IntEnum):
    """``ibv_access_flags``."""

    LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND, ZERO_BASED, ON_DEMAND = (
        1, 2, 4, 8, 16, 32, 64)  # fmt: skip
    HUGETLB, FLUSH_GLOBAL, FLUSH_PERSISTENT, RELAXED_ORDERING = 128, 256, 512, 1 << 20


class AsyncEvent(IntEnum):
    """``ibv_event_type``."""

    CQ_ERR, QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR, COMM_EST, SQ_DRAINED, PATH_MIG, PATH_MIG_ERR = range(8)
    DEVICE_FATAL, PORT_ACTIVE, PORT_ERR, LID_CHANGE, PKEY_CHANGE, SM_CHANGE, SRQ_ERR = range(8, 15)
    SRQ_LIMIT_REACHED, QP_LAST_WQE_REACHED, CLIENT_REREGISTER, GID_CHANGE, WQ_FATAL = range(15, 20)


class QpAttrMask(IntFlag):
    """``ibv_qp_attr_mask``."""

    STATE, CUR_STATE, EN_SQD_ASYNC_NOTIFY, ACCESS_FLAGS, PKEY_INDEX, PORT, QKEY, AV = (1 << n for n in range(8))
    PATH_MTU, TIMEOUT, RETRY_CNT, RNR_RETRY, RQ_PSN, MAX_QP_RD_ATOMIC, ALT_PATH = (1 << n for n in range(8, 15))
    MIN_RNR_TIMER, SQ_PSN, MAX_DEST_RD_ATOMIC, PATH_MIG_STATE, CAP, DEST_QPN = (1 << n for n in range(15, 21))
    RATE_LIMIT = 1 << 25


PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
MTU_BYTES = {1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096}
