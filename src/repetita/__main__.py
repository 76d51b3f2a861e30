"""`python -m repetita` is the command `repetita`."""

from repetita.cli import main

if __name__ == "__main__":
    main()
