"""Handle tables (``ib_uverbs`` idr): what a program names an object by, device-global, never reused."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Generic, TypeVar

from nicemu.driver.errors import DriverError

T = TypeVar("T")


class Handles(Generic[T]):
    """Objects of one kind by handle, in the order of their creation."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._objects: dict[int, T] = {}
        self._last = 0

    def add(self, thing: T) -> int:
        """The new object's handle."""
        self._last += 1
        self._objects[self._last] = thing
        return self._last

    def get(self, handle: int) -> T:
        """The object. EINVAL: there is none."""
        try:
            return self._objects[handle]
        except KeyError:
            raise DriverError(errno.EINVAL, f"no {self.what} with handle {handle}") from None

    def remove(self, handle: int) -> T:
        """Forget the object. EINVAL: there is none."""
        thing = self.get(handle)
        del self._objects[handle]
        return thing

    def restore(self, handle: int, thing: T) -> None:
        """Undo a removal: the object could not be destroyed."""
        self._objects[handle] = thing

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)
