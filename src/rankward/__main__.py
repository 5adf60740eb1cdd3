"""`python -m rankward` is `rankward`."""

from rankward.cli import main

if __name__ == "__main__":
    main()
