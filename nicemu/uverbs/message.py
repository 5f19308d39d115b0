"""``@message``: a frozen dataclass with slots whose methods cost nothing until they are used.

``dataclasses`` compiles nine functions for each frozen class, a millisecond; a program that only imports the API has
about sixty classes and uses none. Here ``__init__`` is compiled at the first instance, the rest is shared.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def message(cls: type[T]) -> type[T]:
    """As ``dataclass(frozen=True, slots=True)``; ``dataclasses.fields`` and ``replace`` work on it."""
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    made.__init__ = _first_init
    made.__repr__, made.__eq__, made.__hash__, made.__reduce__ = _repr, _eq, _hash, _reduce
    made.__setattr__ = made.__delattr__ = _refuse
    return made  # type: ignore[no-any-return]


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    cls = type(self)
    cls.__init__ = _init_of(cls)
    cls.__init__(self, *args, **kwargs)


def _init_of(cls: Any) -> Any:
    """The ``__init__`` that ``dataclasses`` would have made."""
    scope: dict[str, Any] = {}
    parameters, body = ["self"], []
    for member in fields(cls):
        name, value = member.name, member.name
        scope[f"set_{name}"] = getattr(cls, name).__set__
        if member.default_factory is not MISSING:
            scope[f"make_{name}"], scope["MISSING"] = member.default_factory, MISSING
            parameters.append(f"{name}=MISSING")
            value = f"make_{name}() if {name} is MISSING else {name}"
        elif member.default is not MISSING:
            scope[f"default_{name}"] = member.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        body.append(f"    set_{name}(self, {value})")
    exec(f"def __init__({', '.join(parameters)}):\n" + ("\n".join(body) or "    pass"), scope)
    made = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, member.name) for member in fields(self))


def _repr(self: Any) -> str:
    members = ", ".join(f"{member.name}={getattr(self, member.name)!r}" for member in fields(self))
    return f"{type(self).__qualname__}({members})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _reduce(self: Any) -> tuple[Any, ...]:
    return type(self), _values(self)


def _refuse(self: Any, name: str, *_: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot change field {name!r}")
