"""The soft-RoCE lab: a guest with Linux's rxe in it, and the same tests on rxe and on nicemu."""
