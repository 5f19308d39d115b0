"""A bare event loop: the least that moves packets between two NICs in virtual time (``kernel``), and its tables."""
