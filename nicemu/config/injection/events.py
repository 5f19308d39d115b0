"""What happens to a device as a whole, at a time."""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nicemu.config.injection.device import Vector
from nicemu.config.injection.rules import OfNic, Timed


class PortEvent(OfNic, Timed):
    """The port loses or finds its link, or the device dies."""

    boundary = "device (asynchronous events)"
    hardware = "an asynchronous event; down: requests time out; fatal: requests are flushed, verbs fail with EIO"
    here = "the same"
    source = "verbs.h (ibv_event_type), mlx5; docs/errors.md"

    event: Literal["port_down", "port_up", "device_fatal"]


class GidChange(OfNic, Timed):
    """An address of the network interface changes."""

    boundary = "device (asynchronous events)"
    hardware = "GID_CHANGE; connected QPs keep the old address"
    here = "the same"
    source = "verbs.h; docs/errors.md"

    event: Literal["gid_change"]
    index: Annotated[int, Field(ge=0, le=255)] = 0  # of the GID table
    gid: str | None = None  # an IPv6 or IPv4 address; null: the old one with another last byte

    @model_validator(mode="after")
    def _gid_is_an_address(self) -> Self:
        if self.gid is not None:
            try:
                ipaddress.ip_address(self.gid)
            except ValueError:
                raise ValueError("gid: expected an IPv6 or IPv4 address") from None
        return self


class MaskVector(OfNic, Timed):
    """A vector's mask bit is set or cleared: messages stay pending, none is lost."""

    boundary = "device to host (MSI-X)"
    hardware = "messages wait until the vector is unmasked"
    here = "the same; who waits for ever is told by the watchdog"
    source = "PCI 3.0, 6.8.2"

    event: Literal["mask_vector", "unmask_vector"]
    vector: Vector

    @property
    def detail(self) -> str:
        return f"vector {self.vector}"
