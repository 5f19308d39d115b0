# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.mem_alloc import *
