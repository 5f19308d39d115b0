"""Importable, and empty for Python, as in pyverbs."""
