"""Run ``python -m vitzoo``, which is the command ``vitzoo``."""

from vitzoo.cli import main

if __name__ == "__main__":
    main()
