"""What this controller was built from. The image sets the variables; elsewhere it is not known."""

from __future__ import annotations

import os
from typing import Final

COMMIT: Final = os.environ.get("IMAGE_REVISION", "")
DATE: Final = os.environ.get("IMAGE_CREATED", "")
