"""``python -m fastrnn``: what fastrnn does on this machine, shown and checked."""

import sys

from .demo.command import main

if __name__ == "__main__":
    sys.exit(main())
