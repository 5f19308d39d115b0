"""Memory of a fuzz bench: rings with guard bytes between them, regions of model frames with canaries around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nicemu.memory import Frames
from nicemu.tables.records import FrameKind
from nicemu.tables.world import address_of, lazy_bytes

PAGE = 4096
GUARD = 64
GUARD_BYTE = 0xA5


class Rings:
    """Zeroed host memory for rings and records; a guard stands behind each piece."""

    def __init__(self, size: int = 16 << 20) -> None:
        self.bytes = lazy_bytes(size)
        self.address = address_of(self.bytes)
        self.next = 0
        self.guards: list[int] = []

    def take(self, size: int) -> int:
        """Offset of ``size`` bytes, aligned to 64."""
        at = self.next
        end = at + (size + 63) // 64 * 64
        self.bytes[end : end + GUARD] = GUARD_BYTE
        self.guards.append(end)
        self.next = end + GUARD
        assert self.next <= len(self.bytes), "fuzz bench: no room for rings"
        return at

    def write(self, at: int, data: bytes) -> None:
        """Bytes at an offset."""
        self.bytes[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def spoilt(self) -> list[int]:
        """Offsets of guards that somebody wrote over."""
        return [at for at in self.guards if (self.bytes[at : at + GUARD] != GUARD_BYTE).any()]


@dataclass
class Region:
    """What a memory key opens: ``length`` bytes from ``va`` on, in ``frames``."""

    nic: int
    index: int
    va: int
    length: int
    access: int
    pd: int
    frames: np.ndarray
    valid: bool = True
    cold: bool = False
    """The driver takes pages of it away and brings them in."""
    key: int = 0
    name: str = ""
    pages: int = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.index << 8 | 0x5A
        self.pages = len(self.frames)


class Ram:
    """Simulated RAM under canaries: ``allow`` opens bytes, ``spoilt`` names the first that changed and may not have."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.allowed = np.zeros(len(frames.model_bytes), bool)
        self.before = np.empty(0, np.uint8)
        self.used = 0

    def allocate(self, pages: int) -> np.ndarray:
        """Frame numbers of ``pages`` new pages."""
        taken = [self.frames.allocate(FrameKind.MODEL) for _ in range(pages)]
        self.used += pages
        return np.array(taken, np.int64)

    def page(self, frame: int) -> int:
        """Host address of a frame."""
        return int(self.frames.table[frame].pointer)

    def allow(self, frames: np.ndarray, skew: int, length: int) -> None:
        """Bytes ``skew .. skew + length`` of a run of frames may change."""
        for i, frame in enumerate(frames):
            start, end = max(skew - i * PAGE, 0), min(skew + length - i * PAGE, PAGE)
            if start < end:
                at = int(self.frames.table[frame].slot) * PAGE
                self.allowed[at + start : at + end] = True

    def seal(self, seed: int) -> None:
        """Random bytes everywhere, remembered."""
        size = self.used * PAGE
        data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
        self.frames.model_bytes[:size] = data
        self.before = data
        self.guarded = ~self.allowed[:size]

    def spoilt(self) -> int:
        """Offset in RAM of the first canary that changed, -1 if none did."""
        size = self.used * PAGE
        changed = (self.frames.model_bytes[:size] != self.before) & self.guarded
        return int(changed.argmax()) if changed.any() else -1
