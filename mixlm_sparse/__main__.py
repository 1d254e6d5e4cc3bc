"""`python -m mixlm_sparse` is the command `mixlm`."""

from __future__ import annotations

import sys

from mixlm_sparse.interop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
