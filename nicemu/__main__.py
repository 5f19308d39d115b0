"""`python -m nicemu` is the `nicemu` command."""

from nicemu.cli import main

if __name__ == "__main__":
    main()
