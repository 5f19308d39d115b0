# Written by tools/pyverbs_stubs.py
