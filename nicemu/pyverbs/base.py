"""The base classes of pyverbs, and its logging format."""

from __future__ import annotations

import logging
from typing import Any, NoReturn, Self

from nicemu.pyverbs import _kernel
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError

__all__ = ["LOG_FORMAT", "LOG_LEVEL", "PyverbsCM", "PyverbsObject", "PyverbsRDMAErrno", "PyverbsRDMAError", "inc_rkey"]

LOG_LEVEL = logging.INFO
LOG_FORMAT = "[%(levelname)s] %(asctime)s %(filename)s:%(lineno)s: %(message)s"
logging.basicConfig(format=LOG_FORMAT, level=LOG_LEVEL, datefmt="%d %b %Y %H:%M:%S")


def inc_rkey(rkey: int) -> int:
    """The key after `rkey`: its low 8 bits one higher, without a carry."""
    return (rkey & ~0xFF) | (rkey + 1 & 0xFF)


def PyverbsRDMAErrno(msg: str) -> PyverbsRDMAError:
    """An error that carries the errno of the last verbs command that failed."""
    return PyverbsRDMAError(msg, _kernel.last_errno)


class _Logger:
    """The logger named after the class of the object; looked up when used, for it costs more than most objects."""

    def __get__(self, instance: object, owner: type) -> logging.Logger:
        return logging.getLogger(owner.__name__)


class PyverbsObject:
    """Base of every class. An exact instance takes no new attributes; subclasses of a program may add their own."""

    __slots__ = ("__weakref__",)
    logger = _Logger()

    def set_log_level(self, val: int) -> None:
        """Set the level of this class's logger, one of `logging`'s."""
        self.logger.setLevel(val)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot copy or pickle a {type(self).__name__}: it stands for a C structure")


class PyverbsCM(PyverbsObject):
    """Base of what can stand in a `with` statement: leaving it closes the object."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give up what the object holds. A second call does nothing."""
