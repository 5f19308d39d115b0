"""Names of a vendor's modules for a device that is not of that vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from nicemu.pyverbs.pyverbs_error import PyverbsUserError


def absent(module: str, classes: Mapping[str, Any], functions: Iterable[str] = ()) -> dict[str, Any]:
    """What `module` offers: subclasses of the given bases, which are types or names made before; functions that refuse.

    A class named ..Attr only holds what a program puts into it; any other stands for something on the device, and
    cannot be instantiated.
    """
    made: dict[str, Any] = {name: _refusing(module, name) for name in functions}
    for name, base in classes.items():
        base = made[base] if isinstance(base, str) else base
        members: dict[str, Any] = {"__module__": module, "__doc__": _reason(module, name)}
        members["__init__"] = _hold if name.endswith("Attr") else _refusing(module, name)
        made[name] = type(name, (base,), members)
    return made


def _reason(module: str, name: str) -> str:
    vendor = module.split(".")[-2]
    return f"The emulated device is no {vendor} device: it has no {name}"


def _hold(attributes: Any, *_positional: Any, **members: Any) -> None:
    for name, value in members.items():
        setattr(attributes, name, value)


def _refusing(module: str, name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise PyverbsUserError(_reason(module, name))

    refuse.__doc__ = _reason(module, name)
    return refuse
