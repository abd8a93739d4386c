"""`python -m geograft.cli`."""

from geograft.cli import main

if __name__ == "__main__":
    main()
