"""The verbs enums as older pyverbs lays them out: every member at module level, the classes as well."""

from nicemu.pyverbs import libibverbs_enums as _classes
from nicemu.pyverbs._enum import flat as _flat
from nicemu.pyverbs.libibverbs_enums import *  # noqa: F403

globals().update(_flat(_classes))
