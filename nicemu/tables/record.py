"""A record dtype of int64 fields: what every table is made of."""

import numpy as np


def record(*names: str) -> np.dtype:
    """A record of int64 fields."""
    return np.dtype([(name, np.int64) for name in names], align=True)
