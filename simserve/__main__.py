"""``python -m simserve`` is the same command as ``simserve``."""

from __future__ import annotations

import sys

from simserve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
