"""What a NIC does with raw Ethernet frames."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from nicemu.config.types import Record


class RawPacketProfile(Record):
    """Raw packet QPs, flow steering, work queues and RSS."""

    cvlan_stripping: bool = True
    scatter_fcs: bool = True
    ip_csum: bool = True  # checksums of what is sent are filled in, of what is received checked
    end_padding: bool = True  # PCIe writes may be padded to a cache line; the model has nothing to pad
    max_tso: Annotated[int, Field(ge=0, le=2**18)] = 2**18  # bytes of data of one TSO request, 0: none
    max_wq_type_rq: Annotated[int, Field(ge=0, le=2**24)] = 4094  # they share the numbers of QPs
    max_rwq_indirection_tables: Annotated[int, Field(ge=0, le=2**16)] = 256
    max_rwq_indirection_table_size: Annotated[int, Field(ge=1, le=256)] = 256  # a power of two
    max_flows: Annotated[int, Field(ge=0, le=2**16)] = 1024
    qp_rate_limit_min_kbps: Annotated[int, Field(ge=1, le=2**32 - 1)] = 1
    qp_rate_limit_max_kbps: Annotated[int, Field(ge=0, le=2**32 - 1)] = 100_000_000  # 0: no packet pacing

    @model_validator(mode="after")
    def _tables_are_indexable(self) -> Self:
        size = self.max_rwq_indirection_table_size
        if size & (size - 1):
            raise ValueError("max_rwq_indirection_table_size: expected a power of two")
        return self
