"""What lies between the NICs, and what goes wrong there (`fabric:` and `impairments:` of a lab file)."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from nicemu.config.types import Count, Nanoseconds, Record

NicIndex = Annotated[int, Field(ge=0, le=255)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]
Chance = Annotated[float, Field(ge=0, le=1)]

Operation = Literal[
    "SEND_FIRST", "SEND_MIDDLE", "SEND_LAST", "SEND_LAST_IMM", "SEND_ONLY", "SEND_ONLY_IMM",
    "WRITE_FIRST", "WRITE_MIDDLE", "WRITE_LAST", "WRITE_LAST_IMM", "WRITE_ONLY", "WRITE_ONLY_IMM",
    "READ_REQUEST", "READ_RESP_FIRST", "READ_RESP_MIDDLE", "READ_RESP_LAST", "READ_RESP_ONLY",
    "ACKNOWLEDGE", "ATOMIC_ACK", "COMPARE_SWAP", "FETCH_ADD", "SEND_LAST_INV", "SEND_ONLY_INV", "FLUSH",
    "ATOMIC_WRITE",
]  # fmt: skip
"""Names of nicemu.wire.opcode.RcOpcode."""

FieldName = Literal[
    "transport", "operation", "psn", "dest_qpn", "payload", "length", "va", "rkey", "syndrome", "msn", "imm", "pkey",
    "qkey", "ack_request", "solicited", "srqn",
]  # fmt: skip
"""Names of nicemu.tables.records.PacketField."""


class FabricLink(Record):
    """The cables of some NICs. What is not given is what the NIC's own profile says."""

    nics: Annotated[tuple[NicIndex, ...] | None, Field(strict=False)] = None  # from 0; null: all
    rate_gbps: Annotated[int, Field(ge=1, le=3200)] | None = None  # slower than the port: packets queue
    delay_ns: Nanoseconds | None = None
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = None  # bytes of an IP packet
    queue_packets: Count | None = None  # packets that wait for the link; null: any number
    queue_bytes: Bytes | None = None


class Ecn(Record):
    """Marks at an output queue of the switch: none up to kmin, all from kmax on, between them pmax times the share."""

    kmin_bytes: Annotated[int, Field(ge=0, le=2**40)] = 5_000
    kmax_bytes: Bytes = 200_000
    pmax: Chance = 0.01

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.kmax_bytes < self.kmin_bytes:
            raise ValueError(f"kmax_bytes: expected at least kmin_bytes ({self.kmin_bytes})")
        return self


class Pause(Record):
    """Bytes of one ingress port in the switch at which its sender is stopped, and goes on."""

    xoff_bytes: Bytes = 100_000
    xon_bytes: Annotated[int, Field(ge=0, le=2**40)] = 50_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.xon_bytes >= self.xoff_bytes:
            raise ValueError(f"xon_bytes: expected less than xoff_bytes ({self.xoff_bytes})")
        return self


class Switch(Record):
    """One output-queued switch between all NICs."""

    latency_ns: Nanoseconds = 500  # last bit in -> at the output queue
    queue_packets: Count | None = None  # of each output; null: any number
    queue_bytes: Bytes | None = None
    ecn: Ecn | None = None
    pause: Pause | None = None

    @model_validator(mode="after")
    def _pause_loses_nothing(self) -> Self:
        for name in ("queue_packets", "queue_bytes"):
            if self.pause is not None and getattr(self, name) is not None:
                raise ValueError(f"{name}: expected null with pause, which is there so that nothing is dropped")
        return self


class FabricProfile(Record):
    """The wires between the NICs: a full mesh, or one switch."""

    links: Annotated[tuple[FabricLink, ...], Field(strict=False)] = ()
    switch: Switch | None = None


class Impairment(Record):
    """One thing that goes wrong on links, and when.

    A packet is hit if it passes the filter (transport, operations, qpn, psns) inside the window, and each of
    probability, every and packets that is given says so. Packets that pass the filter are counted on each link apart.
    """

    kind: Literal["loss", "reorder", "duplicate", "corrupt", "delay", "partition", "rewrite"]
    name: Annotated[str, Field(max_length=60)] = ""
    must_fire: bool = False  # a run in which no packet was hit fails
    nics: Annotated[tuple[NicIndex, ...] | None, Field(strict=False)] = None  # from 0; null: all
    direction: Literal["out", "in", "both"] | None = None  # null: both for partition, else out

    probability: Chance | None = None
    every: Count | None = None  # the Nth, 2Nth... packet
    packets: Annotated[tuple[Count, ...], Field(strict=False)] = ()  # from 1
    count: Annotated[int, Field(ge=0, le=2**62)] | None = None  # firings at most, all links together

    transport: Literal["RC", "UC", "UD", "CNP", "XRC", "RAW"] | None = None
    operations: Annotated[tuple[Operation, ...], Field(strict=False)] = ()
    qpn: Annotated[int, Field(ge=0, le=2**24 - 1)] | None = None  # destination
    psns: Annotated[tuple[Annotated[int, Field(ge=0, le=2**24 - 1)], ...], Field(strict=False)] = ()
    from_ns: Annotated[int, Field(ge=0, le=2**61)] = 0
    until_ns: Annotated[int, Field(ge=1, le=2**61)] | None = None

    delay_ns: Nanoseconds = 0  # reorder, delay; duplicate: how much later the copy comes
    jitter_ns: Nanoseconds = 0  # up to so much more, drawn
    bit: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None  # corrupt: from the BTH on; null: drawn
    field: FieldName | None = None  # rewrite
    value: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    add: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = None

    @property
    def sides(self) -> tuple[str, ...]:
        """Which of a NIC's two links: ``out``, ``in``."""
        chosen = self.direction or ("both" if self.kind == "partition" else "out")
        return ("out", "in") if chosen == "both" else (chosen,)

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        if self.kind in ("reorder", "delay") and self.delay_ns + self.jitter_ns == 0:
            raise ValueError(f"delay_ns: expected int >= 1 for {self.kind} (or jitter_ns)")
        if self.kind == "rewrite" and self.field is None:
            raise ValueError(f"field: expected one of {', '.join(get_args(FieldName))}")
        if self.kind == "rewrite" and (self.value is None) == (self.add is None):
            raise ValueError("value: expected this or add, one of them")
        if self.until_ns is not None and self.until_ns <= self.from_ns:
            raise ValueError(f"until_ns: expected more than from_ns ({self.from_ns})")
        return self

    @model_validator(mode="after")
    def _nothing_for_another_kind(self) -> Self:
        belongs = {
            "delay_ns": ("reorder", "delay", "duplicate"), "jitter_ns": ("reorder", "delay", "duplicate"),
            "bit": ("corrupt",), "field": ("rewrite",), "value": ("rewrite",), "add": ("rewrite",),
        }  # fmt: skip
        for name, kinds in belongs.items():
            if self.kind not in kinds and name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"{name}: expected only for {' or '.join(kinds)}, not for {self.kind}")
        return self
