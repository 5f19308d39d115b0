"""Work queues and receive-side scaling. Not there yet: EOPNOTSUPP."""

from __future__ import annotations

from typing import Any

from nicemu.pyverbs._fields import U8, U32, U64, Field, Struct
from nicemu.pyverbs._resource import Unsupported
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.libibverbs_enums import ibv_wq_type
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError

__all__ = [
    "WQ",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "RwqIndTable",
    "RwqIndTableInitAttr",
    "RxHashConf",
    "WQAttr",
    "WQInitAttr",
]


class WQInitAttr(Struct):
    """`ibv_wq_init_attr`."""

    __slots__ = {"cq": "Where receives complete", "pd": "The protection domain", "wq_context": "The program's own"}
    wq_type = Field(U32, doc="An `ibv_wq_type`")
    _max_wr = Field(U32)
    _max_sge = Field(U32)
    _comp_mask = Field(U32)
    _create_flags = Field(U32)

    def __init__(
        self,
        wq_context: Any = None,
        wq_pd: Any = None,
        wq_cq: Any = None,
        wq_type: int = ibv_wq_type.IBV_WQT_RQ,
        max_wr: int = 100,
        max_sge: int = 1,
        comp_mask: int = 0,
        create_flags: int = 0,
    ) -> None:
        super().__init__(wq_type=wq_type, _max_wr=max_wr, _max_sge=max_sge)
        self._comp_mask, self._create_flags = comp_mask, create_flags
        self.wq_context, self.pd, self.cq = wq_context, wq_pd, wq_cq


class WQAttr(Struct):
    """`ibv_wq_attr`."""

    __slots__ = ()
    attr_mask = Field(U32, doc="Which members count, as `ibv_wq_attr_mask`")
    wq_state = Field(U32, doc="The state to reach, an `ibv_wq_state`")
    curr_wq_state = Field(U32, doc="The state that it is in, an `ibv_wq_state`")
    flags = Field(U32, doc="`ibv_wq_flags` to set")
    flags_mask = Field(U32, doc="Which of them to change")

    def __init__(
        self, attr_mask: int = 0, wq_state: int = 0, curr_wq_state: int = 0, flags: int = 0, flags_mask: int = 0
    ) -> None:
        super().__init__(
            attr_mask=attr_mask, wq_state=wq_state, curr_wq_state=curr_wq_state, flags=flags, flags_mask=flags_mask
        )


class WQ(Unsupported):
    """A work queue."""

    __slots__ = ()


class RwqIndTableInitAttr(Struct):
    """`ibv_rwq_ind_table_init_attr`."""

    __slots__ = {"wqs_list": "The work queues, a power of two of them"}
    _log_ind_tbl_size = Field(U32)
    _comp_mask = Field(U32)

    def __init__(self, log_ind_tbl_size: int = 5, wqs_list: Any = None, comp_mask: int = 0) -> None:
        super().__init__(_log_ind_tbl_size=log_ind_tbl_size, _comp_mask=comp_mask)
        self.wqs_list = wqs_list


class RwqIndTable(Unsupported):
    """A table that spreads packets over work queues."""

    __slots__ = ()


class RxHashConf(Struct):
    """`ibv_rx_hash_conf`: how packets are hashed."""

    __slots__ = {"rx_hash_key": "The key"}
    rx_hash_function = Field(U8, doc="An `ibv_rx_hash_function_flags`")
    rx_hash_key_len = Field(U8, doc="Bytes of the key")
    rx_hash_fields_mask = Field(U64, doc="What is hashed, as `ibv_rx_hash_fields`")

    def __init__(
        self, rx_hash_function: int = 0, rx_hash_key_len: int = 0, rx_hash_key: Any = None, rx_hash_fields_mask: int = 0
    ) -> None:
        super().__init__(rx_hash_function=rx_hash_function, rx_hash_key_len=rx_hash_key_len)
        self.rx_hash_fields_mask, self.rx_hash_key = rx_hash_fields_mask, rx_hash_key
