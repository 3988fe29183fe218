"""`python -m openfero_gitops` is the same as the command `openfero-gitops`."""

import sys

from openfero_gitops.cli import main

if __name__ == "__main__":
    sys.exit(main())
