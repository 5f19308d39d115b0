"""One entry of `inject:`: what goes wrong on purpose, where and when."""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nicemu.config.types import Count, Nanoseconds, Record

Event = Literal[
    "port_down", "port_up", "gid_change", "device_fatal", "mask_vector", "unmask_vector", "lose_interrupt"
]  # fmt: skip
VECTOR_EVENTS = ("mask_vector", "unmask_vector", "lose_interrupt")
FIRST_COMPLETION_VECTOR = 4
"""MSI-X vectors: 1 commands, 2 async events, 3 page faults, 4 and up completions."""


class Injection(Record):
    """`at_ns` counts from the start of the lab. `lose_interrupt` has no time: it loses message `nth` of `vector`."""

    event: Event
    nic: Annotated[int, Field(ge=0, le=7)] = 0
    at_ns: Nanoseconds = 0
    vector: Annotated[int, Field(ge=1, le=67)] | None = None
    nth: Count = 1
    index: Annotated[int, Field(ge=0, le=255)] = 0  # gid_change: entry of the GID table
    gid: str | None = None  # gid_change: an IPv6 or IPv4 address; default: the old one with another last byte

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.event in VECTOR_EVENTS and self.vector is None:
            raise ValueError(f"vector: expected an MSI-X vector for {self.event}")
        if self.gid is not None:
            try:
                ipaddress.ip_address(self.gid)
            except ValueError:
                raise ValueError("gid: expected an IPv6 or IPv4 address") from None
        return self
