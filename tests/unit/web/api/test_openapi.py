from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from openfero_gitops.web.api import openapi
from openfero_gitops.web.api.openapi import make_document
from openfero_gitops.web.api.operation import operations_of
from openfero_gitops.web.server import Address
from tests.support.api_table import PAGE, with_table
from tests.support.serving import local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.web.api.operation import Operation


#: Modules of handlers that serve what browsers show.
#: Answers without an end, which have no HEAD.
STREAMS = {"/api/events", "/api/remediations/{namespace}/{name}/log"}
NOT_API = ("openfero_gitops.web.pages", "openfero_gitops.web.swagger")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document of a server."""
    return make_document(_operations())


def _operations() -> list[Operation]:
    return list(operations_of(listener.app for listener in local_server()._listeners))


def _members(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from _members(member)
    elif isinstance(value, list):
        for item in value:
            yield from _members(item)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """The document is valid OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Each reference names a component, and each component is referred to."""
    references = {member["$ref"] for member in _members(document) if "$ref" in member}
    components = document["components"]
    assert references == {
        f"#/components/{kind}/{name}"
        for kind in components.keys() - {"securitySchemes"}
        for name in components[kind]
    }


def test_every_parameter_and_member_is_in_camel_case(document: dict[str, Any]) -> None:
    """The document names what a client sends and receives, not the fields of models."""
    schemas = document["components"]["schemas"]
    names = {name for schema in schemas.values() for name in schema.get("properties", {})}
    for path in document["paths"].values():
        for operation in path.values():
            names |= {parameter["name"] for parameter in operation["parameters"]}
    assert {"startsAt", "continue", "from", "buildDate"} <= names
    assert [name for name in names if "_" in name] == []


def test_the_document_has_no_markup(document: dict[str, Any]) -> None:
    """Swagger UI renders descriptions as Markdown, but none has HTML to sanitize."""
    assert "<" not in json.dumps(document)


def test_every_parameter_is_described(document: dict[str, Any]) -> None:
    """Parameters have a description, and operations a unique name and a summary."""
    operations = [op for path in document["paths"].values() for op in path.values()]
    for operation in operations:
        assert operation["summary"]
        assert all(parameter.get("description") for parameter in operation["parameters"])
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)


def test_members_are_described_by_the_docstrings_of_fields(document: dict[str, Any]) -> None:
    """Members of answers have a description, those that a model inherits as well."""
    schemas = document["components"]["schemas"]
    commit_stats = schemas["CommitStats"]["properties"]
    assert commit_stats["runs"]["description"] == "Jobs that started."
    operario_list = schemas["OperarioList"]["properties"]
    assert operario_list["continue"]["description"].startswith("Token of the next page")


def test_fields_that_only_the_source_has_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of a running replica may be that of the next version already."""
    monkeypatch.setattr(openapi, "field_docstrings", lambda _: {"newer": "A field to come."})
    assert "A field to come." not in json.dumps(make_document(_operations()))


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    """The document has all paths and methods, except pages and static files."""
    server = local_server(web_listen=Address("127.0.0.1", 0))
    served = {
        (route.method, route.resource.canonical.rstrip("/"))
        for listener in server._listeners
        for route in listener.app.router.routes()
        if route.resource is not None and not route.handler.__module__.startswith(NOT_API)
    }
    documented = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert {(method, path) for method, path in served if method != "HEAD"} == documented
    heads = {path for method, path in served if method == "HEAD"}
    assert heads == {path for method, path in documented if method == "GET"} - STREAMS


def test_the_documentation_lists_every_operation() -> None:
    """The table of docs/reference/api.md has each operation with its summary and parameters."""
    text = PAGE.read_text()
    assert text == with_table(text), "run make docs"
