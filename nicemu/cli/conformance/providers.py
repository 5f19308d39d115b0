"""Stand-ins for the vendor modules that rdma-core's tests import even where they do not use them.

`pyverbs.providers.*` exists here only: its classes can be imported, subclassed and named, and raise PyverbsUserError
when instantiated, so that the tests of other vendors' devices skip themselves. A module of pyverbs that nicemu lacks
gets the same treatment with PyverbsRDMAError(EOPNOTSUPP), which tests take for "the device cannot do this".
"""

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _AbsentMeta(type):
    """Makes a class pass for an enum without members: `Absent.ANY_NAME` is 0, and iteration ends at once."""

    def __getattr__(cls, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0

    def __iter__(cls) -> Iterator[int]:
        return iter(())


class Absent(metaclass=_AbsentMeta):
    """A class that cannot be instantiated."""

    _what = ""
    _error: Callable[[str], Exception]

    def __new__(cls, *_arguments: Any, **_options: Any) -> "Absent":
        raise cls._error(f"{cls._what} is not supported by the emulated device")


def _user_error(message: str) -> Exception:
    from nicemu.pyverbs.pyverbs_error import PyverbsUserError

    error: Exception = PyverbsUserError(message)
    return error


def _not_supported(message: str) -> Exception:
    from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError

    error: Exception = PyverbsRDMAError(message, errno.EOPNOTSUPP)
    return error


def _timestamp_to_ns(context: Any, timestamp: int) -> int:
    """Ticks of the device's clock (`hca_core_clock` kHz) as nanoseconds."""
    return int(timestamp * 1_000_000 // context.query_device_ex().hca_core_clock)


class _Module(ModuleType):
    """A module in which every public name exists: constants are 0, the rest are absent classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.lstrip("_").isupper():
            return 0
        is_provider = self.__name__.startswith("pyverbs.providers")
        error = staticmethod(_user_error if is_provider else _not_supported)
        value = _AbsentMeta(name, (Absent,), {"_what": f"{self.__name__}.{name}", "_error": error})
        if name == "Mlx5Context":  # generic timestamp tests convert through it
            value.device_timestamp_to_ns = staticmethod(_timestamp_to_ns)  # type: ignore[attr-defined]
        setattr(self, name, value)
        return value


class ProviderFinder(MetaPathFinder, Loader):
    """Finds what the finder before it (`nicemu._alias`) did not, below `pyverbs`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("pyverbs."):
            return None
        return ModuleSpec(fullname, self, origin="absent", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name, "A module that the emulated device has no use for.")

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Add the finder right behind nicemu's own, which must be installed."""
    sys.meta_path.insert(1, ProviderFinder())
