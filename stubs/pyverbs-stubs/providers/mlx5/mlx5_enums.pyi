# Written by tools/pyverbs_stubs.py
from nicemu.pyverbs.providers.mlx5.mlx5_enums import *
