# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.libibverbs import *
