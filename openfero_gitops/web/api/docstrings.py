"""Reads the descriptions of fields: the docstrings below them.

`use_attribute_docstrings` of pydantic reads the source of each model when it is defined. That took
a fifth of the time that a replica needs to start, for a document that is seldom requested.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def field_docstrings(model: type) -> dict[str, str]:
    """Return the docstrings of the fields of a class by name, with those it inherits.

    A class has none if its module has no source, or if it is not at the top level of its module.
    """
    docstrings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        docstrings |= _of_module(base.__module__).get(base.__qualname__, {})
    return docstrings


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of the fields of each class of one of our modules."""
    if not name.startswith("openfero_gitops."):
        return {}
    try:
        statements = ast.parse(inspect.getsource(sys.modules[name])).body
    except (OSError, SyntaxError):
        # Installed without sources, or they change at this moment: descriptions are not vital.
        return {}
    return {
        node.name: dict(_of_class(node)) for node in statements if isinstance(node, ast.ClassDef)
    }


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(node.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(docstring))),
            ):
                yield name, inspect.cleandoc(docstring)
