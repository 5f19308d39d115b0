"""``nicemu bench``: what the emulator costs in wall-clock time, each row beside a limit measured in the same run.

``rows/`` has a file for each topic: it names cases. ``measure`` takes readings of a case and of its limits in turn;
``units`` makes numbers of readings; ``results`` keeps them as JSON; ``table``, ``gates``, ``against`` and ``document``
read those. Nothing of the model knows of being measured: cases go through pyverbs, as any program does.
"""
