import sys

from spdlib.pretraining.cli import main

if __name__ == "__main__":
    sys.exit(main())
