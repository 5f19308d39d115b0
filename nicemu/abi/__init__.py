"""Formats shared by both sides of a ring: verbs values, WQE, CQE, EQE and command layouts.

Rings are little-endian and naturally aligned. A producer writes the body, then the owner word, then the doorbell.
"""
