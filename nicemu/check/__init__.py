"""The race hunter: runs scenarios under many interleavings of host threads and device, and checks what must hold.

A scenario (``scenario.py``) is data: memory, and what each thread does with it. ``testbed.py`` sets it up on a lab;
``explore.py`` runs it under one schedule; ``policy.py`` has the ways to choose schedules; ``invariants.py`` and
``reference.py`` judge a run; ``hunt.py`` runs many; ``shrink.py`` makes a schedule short; ``export.py`` writes the
scenario as a pyverbs program.
"""
