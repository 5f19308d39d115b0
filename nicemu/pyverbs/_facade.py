"""Public modules whose classes are written in private ones."""

import sys


def publish(module: str) -> None:
    """Make `module` the home of what it offers from private modules: `help`, `repr` and pickle then name it."""
    offered = sys.modules[module]
    for name in offered.__all__:  # those of them that are there already
        value = vars(offered).get(name)
        if getattr(value, "__module__", "").startswith("nicemu.pyverbs._"):
            value.__module__ = module
