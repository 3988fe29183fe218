"""The table of operations in the API reference; `python -m tests.support.api_table` writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.web.api.operation import operations_of
from tests.support.serving import local_server

if TYPE_CHECKING:
    from openfero_gitops.web.api.operation import Operation

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/reference/api.md"
_ROWS: Final = re.compile(r"(?m)(^\| `.*\n)+")


def with_table(text: str) -> str:
    """Return the page with the rows of the operations that the server has."""
    operations = operations_of(listener.app for listener in local_server()._listeners)
    rows = "".join(map(_row, sorted(operations, key=lambda op: (op.path, op.method))))
    return _ROWS.sub(lambda _: rows, text, count=1)


def _row(operation: Operation) -> str:
    fields = operation.query.model_fields.items() if operation.query else ()
    names = ", ".join(f"`{field.alias or name}`" for name, field in fields)
    return f"| `{operation.method} {operation.path}` | {operation.summary} | {names} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
