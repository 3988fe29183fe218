"""The Kubernetes API: one client, list and watch, and a small store for each kind of object.

Errors are translated to `domain/errors`. No decision is made here.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    Path.home()
except RuntimeError:
    # The client library looks for the home directory when it is imported, and ends with a traceback
    # where there is none (no HOME, and no passwd entry for this user).
    os.environ["HOME"] = "/"
    import openfero_gitops.cluster.library  # noqa: F401

    del os.environ["HOME"]
