# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.providers.efa.efa_enums import *
