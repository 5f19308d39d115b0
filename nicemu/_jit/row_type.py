"""The type of a row in compiled code: a numba record whose fields are int64 however narrow they are stored.

Were they of their own widths, each helper would be compiled for each mixture of them, and differences of unsigned
fields would be unsigned. LLVM is told of each access which field of which table it is (type-based alias analysis): a
store to one leaves what was read of others as it is. Imported only when something is compiled.
"""

from __future__ import annotations

import zlib
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, models, register_model


class Row(types.Record):
    """A row of the table in ``slot``."""

    def __init__(self, dtype: np.dtype, slot: int) -> None:
        record = numba.from_dtype(dtype)
        self.fields, self.size, self.aligned, self.bitwidth = (
            record.fields,
            record.size,
            record.aligned,
            record.size * 8,
        )
        self.slot = slot
        shape = zlib.crc32(repr(dtype.descr).encode())
        types.Type.__init__(self, f"Row({slot},{shape:x})")  # short: numba puts it into every name

    def can_convert_to(self, typing_context: Any, other: types.Type) -> None:
        """Never: a row of another table is something else, whatever its fields are called."""


register_model(Row)(models.RecordModel)


@infer_getattr
class RowAttribute(AttributeTemplate):
    """What kernels read and write is int64."""

    key = Row

    def generic_resolve(self, row: Row, attr: str) -> types.Type:
        return types.int64


def place_of(context: Any, builder: Any, row: Row, value: Any, attr: str) -> tuple[Any, Any]:
    """Pointer to a field, and the tag of accesses to it."""
    pointer = cgutils.get_record_member(builder, value, row.offset(attr), context.get_data_type(row.typeof(attr)))
    module, zero = builder.module, ir.Constant(ir.IntType(64), 0)
    field = module.add_metadata([f"{row.slot}.{attr}", module.add_metadata(["rows"]), zero])
    return pointer, module.add_metadata([field, field, zero])


@lower_getattr_generic(Row)
def load_field(context: Any, builder: Any, row: Row, value: Any, attr: str) -> Any:
    """Read a field and widen it, with or without its sign."""
    pointer, tag = place_of(context, builder, row, value, attr)
    stored = builder.load(pointer)
    stored.set_metadata("tbaa", tag)
    return context.cast(builder, stored, row.typeof(attr), types.int64)


@lower_setattr_generic(Row)
def store_field(context: Any, builder: Any, signature: Any, args: Any, attr: str) -> None:
    """Write a field, cut to its width."""
    row, kind = signature.args
    pointer, tag = place_of(context, builder, row, args[0], attr)
    builder.store(context.cast(builder, args[1], kind, row.typeof(attr)), pointer).set_metadata("tbaa", tag)
