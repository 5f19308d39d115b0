"""Experiments as files: a lab, a workload, what to vary, what to measure, and what is expected from where."""
