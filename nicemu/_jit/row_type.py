"""The type of a row in compiled code: a numba record whose fields are int64 however narrow they are stored.

Were they of their own widths, each helper would be compiled for each mixture of them, and differences of unsigned
fields would be unsigned. Imported only when something is compiled.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, lower_getattr_generic, models, register_model
from numba.np import arrayobj


class Row(types.Record):
    """A row of a table."""


def row_of(dtype: np.dtype) -> Row:
    """The type of the rows of a table of ``dtype``."""
    record = numba.from_dtype(dtype)
    fields = [
        (name, {"type": field.type, "offset": field.offset, "alignment": field.alignment})
        for name, field in record.fields.items()
    ]
    return Row(fields, record.size, record.aligned)


register_model(Row)(models.RecordModel)


@infer_getattr
class RowAttribute(AttributeTemplate):
    """What kernels read and write is int64. Stores go through numba's record, which cuts them to the field."""

    key = Row

    def generic_resolve(self, row: Row, attr: str) -> types.Type:
        return types.int64


@lower_getattr_generic(Row)
def load_field(context: Any, builder: Any, row: Row, value: Any, attr: str) -> Any:
    """Read a field and widen it, with or without its sign."""
    stored = arrayobj.record_getattr(context, builder, row, value, attr)
    return context.cast(builder, stored, row.typeof(attr), types.int64)
