"""The connection manager's enums as older pyverbs lays them out: every member at module level."""

from nicemu.pyverbs import librdmacm_enums as _classes
from nicemu.pyverbs._enum import flat as _flat
from nicemu.pyverbs.librdmacm_enums import *  # noqa: F403

globals().update(_flat(_classes))
