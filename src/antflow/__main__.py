"""``python -m antflow`` is the command ``antflow``."""

from __future__ import annotations

import sys

from ._cli.main import main

if __name__ == "__main__":  # pragma: no branch
    sys.exit(main())
