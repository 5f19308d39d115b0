# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.dma_util import *
