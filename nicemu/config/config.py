"""The configuration of one run: one page of fields, `configs/lab/*.yaml` are examples."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from nicemu.config import paths
from nicemu.config.fabric_profile import FabricProfile, Impairment
from nicemu.config.host_profile import HostProfile
from nicemu.config.injection import AnyInjection
from nicemu.config.injection.device import FIRST_COMPLETION_VECTOR, PacketFault
from nicemu.config.injection.events import GidChange
from nicemu.config.mutants import MUTANTS
from nicemu.config.nic_profile import NicProfile
from nicemu.config.profiles import Profile, load_profile, unlike
from nicemu.config.types import Record

Discipline = Literal["v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12"]
Subscriber = Literal["auto", "chain", "interval"]
if TYPE_CHECKING:
    Mutant = str
else:
    Mutant = Literal[*MUTANTS]


def _base(info: ValidationInfo) -> Path | None:
    return (info.context or {}).get("base")


def _profile(model: type[Profile], kind: str, value: Any, base: Path | None) -> Any:
    """A name, a path, or fields; with `like: NAME` among them what they do not say is as in that profile."""
    if isinstance(value, dict):
        return unlike(model, kind, value, base)
    return load_profile(model, kind, value, base) if isinstance(value, str) else value


def _nic(value: Any, info: ValidationInfo) -> Any:
    return _profile(NicProfile, "nic", value, _base(info))


def _host(value: Any, info: ValidationInfo) -> Any:
    return _profile(HostProfile, "host", value, _base(info))


def _default_nic() -> NicProfile:
    return load_profile(NicProfile, "nic", "connectib")


def _default_host() -> HostProfile:
    return load_profile(HostProfile, "host", "linux")


def _path(value: Any, info: ValidationInfo) -> Any:
    return (_base(info) or Path.cwd()) / Path(value).expanduser() if isinstance(value, str) and value else value


def _writable(path: Path | None) -> Path | None:
    """A file that can be made or replaced, said before the program starts."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(": expected a file in a folder that exists")
    if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(": expected a file that may be written")
    return path


def _image(value: str, info: ValidationInfo) -> str:
    """Keep the name of a shipped image; make a path absolute. `default` is built in."""
    if value == "default":
        return value
    path = paths.find(value, "firmware", ".py", _base(info))
    if path is None:
        known = ", ".join(sorted({"default", *paths.shipped_names("firmware", ".py")}))
        raise ValueError(f": expected a Python file that exists or one of the shipped images ({known})")
    return str(path) if "/" in value or value.endswith(".py") else value


def _images(value: Any, info: ValidationInfo) -> Any:
    """One image alone is every NIC's."""
    return (_image(value, info),) if isinstance(value, str) else value


def _device_name(value: str) -> str:
    """As the kernel's ``IB_DEVICE_NAME_MAX`` (64 with the NUL) allows."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", value) is None:
        raise ValueError(": expected a device's name: a letter, then letters, digits, '_', '.', '-', at most 63 in all")
    return value


class Config(Record):
    """What `nicemu run` and every lab are given. Profiles are named, given as a path, or written inline."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    nic: Annotated[NicProfile, BeforeValidator(_nic)] = Field(default_factory=_default_nic)
    host: Annotated[HostProfile, BeforeValidator(_host)] = Field(default_factory=_default_host)
    nics: Annotated[int, Field(ge=1, le=256)] = 1
    names: Annotated[tuple[Annotated[str, AfterValidator(_device_name)], ...], Field(strict=False)] = ()
    fabric: FabricProfile = FabricProfile()
    impairments: Annotated[tuple[Impairment, ...], Field(strict=False)] = ()
    memory: Literal["arena", "model"] = "arena"
    discipline: Discipline = "v6.12"
    subscriber: Subscriber = "auto"
    firmware: Annotated[
        tuple[Annotated[str, AfterValidator(_image)], ...], BeforeValidator(_images), Field(strict=False, min_length=1)
    ] = ("default",)
    check_firmware: bool = False
    sanitizer: bool = True
    copy_payload: bool = True  # False: RDMA WRITE and READ move no data; times are the same
    force_odp: bool = False
    evict_per_ms: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0  # per virtual millisecond
    trace: Annotated[Path | None, BeforeValidator(_path), AfterValidator(_writable)] = None
    trace_limit_mb: Annotated[int, Field(ge=1)] | None = None  # then the trace ends; the run goes on
    pcap: Annotated[Path | None, BeforeValidator(_path), AfterValidator(_writable)] = None
    inject: Annotated[tuple[AnyInjection, ...], Field(strict=False)] = ()
    mutants: Annotated[tuple[Mutant, ...], Field(strict=False)] = ()

    @property
    def notifier_subscriber(self) -> Literal["chain", "interval"]:
        """How the driver subscribes, with `auto` decided by the discipline."""
        if self.subscriber != "auto":
            return self.subscriber
        return "interval" if self.discipline == "v6.12" else "chain"

    @property
    def device_names(self) -> tuple[str, ...]:
        """The name of every device: `names`, then nicemu with the device's number."""
        return (*self.names, *(f"nicemu{number}" for number in range(len(self.names), self.nics)))

    @property
    def firmware_paths(self) -> tuple[Path, ...]:
        """The file of each NIC's firmware image."""
        names = self.firmware * self.nics if len(self.firmware) == 1 else self.firmware
        found = (paths.find(name, "firmware", ".py") for name in names)
        return tuple(path or paths.shipped("firmware") / f"{name}.py" for path, name in zip(found, names, strict=True))

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if len(self.names) > self.nics or len(set(self.device_names)) < self.nics:
            raise ValueError(f"names: expected at most {self.nics} (nics) names, each once")
        return self

    @model_validator(mode="after")
    def _every_nic_has_an_image(self) -> Self:
        if len(self.firmware) not in (1, self.nics):
            raise ValueError(f"firmware: expected one image, or {self.nics} (nics), one for each NIC")
        return self

    @model_validator(mode="after")
    def _nics_exist(self) -> Self:
        for field, named in (("fabric", self.fabric.links), ("impairments", self.impairments)):
            for each in named:
                if any(nic >= self.nics for nic in each.nics or ()):
                    raise ValueError(f"{field}: expected nics 0..{self.nics - 1} in each item")
        return self

    @model_validator(mode="after")
    def _subscriber_exists(self) -> Self:
        wanted = "interval" if self.discipline == "v6.12" else "chain"
        if self.notifier_subscriber != wanted:
            raise ValueError(f"subscriber: expected auto or {wanted} under discipline {self.discipline}")
        return self

    @model_validator(mode="after")
    def _injections_have_a_place(self) -> Self:
        last = FIRST_COMPLETION_VECTOR + self.nic.num_comp_vectors - 1
        for i, item in enumerate(self.inject):
            nics = (item.nics or ()) if isinstance(item, PacketFault) else (getattr(item, "nic", 0),)
            if any(nic >= self.nics for nic in nics):
                raise ValueError(f"inject: expected entry {i} on a NIC 0..{self.nics - 1}")
            if getattr(item, "vector", 0) > last:
                raise ValueError(f"inject: expected entry {i} on a vector 1..{last}")
            if isinstance(item, GidChange) and item.index >= self.nic.gid_tbl_len:
                raise ValueError(f"inject: expected entry {i} on a GID index 0..{self.nic.gid_tbl_len - 1}")
        return self
