"""``python -m patron``: the same as the command ``patron``."""

from patron.cli import main

if __name__ == "__main__":
    main()
