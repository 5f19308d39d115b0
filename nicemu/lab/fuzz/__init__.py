"""A hostile peer and a hostile program against the device: what ``nicemu fuzz`` runs (``docs/fuzz.md``)."""
