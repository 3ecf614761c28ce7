import sys

from spdlib.sweep.sweeping import main

if __name__ == "__main__":
    sys.exit(main())
