# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.librdmacm_enums import *
