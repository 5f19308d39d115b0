"""Frames with real bytes, memory kinds, copies that cannot crash, and the DMA sanitizer's stamps."""

from nicemu.memory.frames import Frames, OutOfFrames

__all__ = ["Frames", "OutOfFrames"]
