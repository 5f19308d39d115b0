# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.cm_enums import *
