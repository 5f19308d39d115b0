"""Record dtypes: what every table is made of.

A field is an ``int64`` to whoever reads it, in compiled code and as plain Python. ``"name:i32"`` says that it is stored
narrower, and what it must fit into: a value that does not is an OverflowError without JIT and is cut off with it.
"""

import numpy as np

WIDTHS = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32, "u32": np.uint32}


def record(*fields: str) -> np.dtype:
    """A record of integer fields in the order given, each aligned to its own size: ``"name"`` or ``"name:width"``."""
    split = (field.partition(":") for field in fields)
    return np.dtype([(name, WIDTHS[width] if width else np.int64) for name, _, width in split], align=True)
