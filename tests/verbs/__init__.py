"""Plain pyverbs tests for nicemu and for real devices: `pytest tests/verbs --verbs nicemu|rxe` (docs/rxe.md)."""
