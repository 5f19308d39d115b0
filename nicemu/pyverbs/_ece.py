"""Enhanced connection establishment."""

from __future__ import annotations

from nicemu.pyverbs._fields import U32, Field, Struct
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsCM


class ECE(Struct, PyverbsCM):
    """Enhanced connection establishment: vendor options."""

    __slots__ = ()
    vendor_id = Field(U32, doc="The vendor whose options these are")
    options = Field(U32, doc="The vendor's options")
    comp_mask = Field(U32, doc="Which of them count")

    def __init__(self, vendor_id: int = 0, options: int = 0, comp_mask: int = 0) -> None:
        super().__init__(vendor_id=vendor_id, options=options, comp_mask=comp_mask)

    def __str__(self) -> str:
        rows = [("Vendor ID", self.vendor_id), ("Options", self.options), ("Comp Mask", self.comp_mask)]
        return "ECE:\n" + lines(rows, "{:22}: 0x{:<20x}\n")
