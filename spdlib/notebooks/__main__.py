import sys

from spdlib.notebooks.run import main

if __name__ == "__main__":
    sys.exit(main())
