# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.pyverbs_error import *
