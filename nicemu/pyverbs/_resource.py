"""Objects that the kernel holds: who keeps whom alive, and in which order they are closed."""

from __future__ import annotations

import errno
import sys
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from nicemu.pyverbs import _kernel
from nicemu.pyverbs.base import PyverbsCM
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError


class Resource(PyverbsCM):
    """A kernel object. A child holds its parents; a parent knows its children weakly and closes them before itself."""

    __slots__ = ("_children", "_generation", "_handle", "_imported", "_kernel")
    _handle: int | None
    _generation: int
    _imported: bool
    _kernel: Any
    _children: dict[str, WeakValueDictionary[int, Resource]]  # in order of creation, so that histories repeat
    KIND: ClassVar[str] = ""
    """Under which name parents keep it."""
    CHILDREN: ClassVar[tuple[str, ...]] = ()
    """Kinds of children in the order of closing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._handle = None
        self._imported = False
        self._generation = _kernel.generation
        self._children = {}
        return self

    def _opened(self) -> int:
        """The kernel handle; PyverbsUserError if the object is closed."""
        if self._handle is None:
            raise PyverbsUserError(f"This {type(self).__name__} is closed")
        return self._handle

    def _is_closed(self) -> bool:
        return self._handle is None

    def _execute(self, command: object, failure: str) -> Any:
        return _kernel.execute(self._kernel, command, failure)

    def _attach(self, parent: Resource) -> None:
        """Be closed before `parent`."""
        parent._children.setdefault(self.KIND, WeakValueDictionary())[id(self)] = self

    def _detach(self, parent: Resource) -> None:
        if self.KIND in parent._children:
            parent._children[self.KIND].pop(id(self), None)

    def close(self) -> None:
        """Close the children, then the object. A second call does nothing. PyverbsRDMAError: the kernel refused.

        An imported object is left to whom it was imported from.
        """
        if self._is_closed():
            return
        self.logger.debug("Closing %s", type(self).__name__)
        for kind in self.CHILDREN:
            children = self._children.pop(kind, None)
            for child in list(children.values()) if children else ():
                child.close()
        if self._is_closed():
            return  # closing it was the end of a child
        if not self._imported:
            self._destroy(self._opened())
        self._handle = None
        self._release()

    def _destroy(self, handle: int) -> None:
        """Tell the kernel."""
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of the parents."""

    def __del__(self) -> None:
        if sys.is_finalizing() or self._generation != _kernel.generation:
            return  # the session goes down with everything in it; what a child inherited is its parent's to close
        try:
            self.close()
        except PyverbsRDMAError as error:
            if error.error_code == errno.EBUSY:
                _busy.append(self)
            elif error.error_code == errno.EINVAL:
                self._release()  # it went with its context, which was finalised first
            elif error.error_code != errno.ENODEV:  # the device is gone
                raise
        else:
            _close_busy()


_busy: list[Resource] = []
"""Collected in one garbage with children of theirs, and before these: they can be closed once the children are."""


def _close_busy() -> None:
    """Try again what was busy, the newest first; what fails otherwise went with its context."""
    waiting, _busy[:] = _busy[:], []
    for each in reversed(waiting):
        try:
            if each._generation == _kernel.generation:
                each.close()
        except PyverbsRDMAError as error:
            if error.error_code == errno.EBUSY:
                _busy.append(each)


def unsupported(what: str) -> PyverbsRDMAError:
    """The error of a call that is not emulated."""
    return PyverbsRDMAError(what, errno.EOPNOTSUPP)
