# Written by tools/pyverbs_stubs.py
from typing import Any

def __getattr__(name: str) -> Any: ...
