"""Makes the OpenAPI 3.1 document from the operations that the server has."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from openapi_pydantic import (
    Components,
    Info,
    License,
    MediaType,
    OpenAPI,
    Parameter,
    ParameterLocation,
    PathItem,
    Reference,
    RequestBody,
    Response,
    Schema,
    SecurityScheme,
    Server,
)
from openapi_pydantic import Operation as DocumentedOperation
from openapi_pydantic import Tag as DocumentedTag
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from openfero_gitops import __version__
from openfero_gitops.web.api.docstrings import field_docstrings
from openfero_gitops.web.api.operation import JSON, Operation, Reply, Tag
from openfero_gitops.web.api.problem_document import ProblemDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core.core_schema import ModelSchema

_SUFFIX: Final = "Shape"
_REFERENCES: Final = "#/components/schemas/{model}"
_COMMON_REPLY: Final = "#/components/responses/{name}"
_WORDS: Final = re.compile("[A-Za-z0-9]+")
_DESCRIPTION: Final = (
    "Alerts of Alertmanager run reviewed Kubernetes Jobs from Git. This API shows what came, what "
    "was done and whether it helped; it changes nothing. Only deliveries and push hooks are sent "
    "to it. Times are RFC 3339 in UTC. Errors are problem documents (RFC 9457). Answers have a "
    "weak ETag, for If-None-Match. Clients must ignore members that they do not know."
)
_TAGS: Final = {
    Tag.REMEDIATIONS: "Jobs for alerts, and whether they helped.",
    Tag.ALERTS: "Every alert that came.",
    Tag.OPERARIOS: "Remediation definitions from Git.",
    Tag.CONTROLLER: "Sync, problems of the repository, replicas.",
    Tag.OPENFERO: "The same paths and members as OpenFero, for its clients.",
    Tag.DELIVERIES: "For Alertmanager and Git forges, at the address of --listen.",
    Tag.PROBES: "For Kubernetes and Prometheus, without credentials.",
}
_SECURITY: Final = {
    "basic": SecurityScheme(type="http", scheme="basic"),
    "bearer": SecurityScheme(type="http", scheme="bearer"),
    "certificate": SecurityScheme(type="mutualTLS"),
}
#: Which of them are needed depends on the settings.
_ANY_CREDENTIALS: Final[list[dict[str, list[str]]]] = [
    {},
    {"basic": []},
    {"bearer": []},
    {"certificate": []},
]


class _Schemas(GenerateJsonSchema):
    """Describes members by the docstrings of their fields.

    Names schemas after their models, without the suffix of models of answers.
    """

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        model = schema["cls"]
        docstrings = field_docstrings(model)
        # The source may have been replaced since it was imported, and have other fields.
        for name in model.model_fields.keys() & docstrings.keys():
            member = described["properties"][model.model_fields[name].alias or name]
            member.setdefault("description", docstrings[name])
        return described

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name.removesuffix(_SUFFIX))


def make_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Make the document that describes some operations."""
    operations = sorted(operations, key=lambda operation: operation.path)
    references, definitions = _schemas(operations)
    common = _common_replies(operations)
    paths: dict[str, PathItem] = {}
    for operation in operations:
        item = paths.setdefault(operation.path, PathItem())
        setattr(item, operation.method.lower(), _documented(operation, references, common))
    document = OpenAPI(
        openapi="3.1.1",
        info=Info(
            title="openfero-gitops",
            version=__version__,
            description=_DESCRIPTION,
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
        ),
        servers=[Server(url=".", description="The server of this document.")],
        tags=[
            DocumentedTag(name=tag.value, description=text)
            for tag, text in _TAGS.items()
            if any(operation.tag is tag for operation in operations)
        ],
        paths=paths,
        components=Components(
            schemas={name: Schema.model_validate(schema) for name, schema in definitions.items()},
            responses={name: _response(reply, references) for reply, name in common.items()},
            securitySchemes=dict(_SECURITY),
        ),
    )
    return document.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return a reference to the schema of each model, and the schemas by name."""
    modes: dict[Any, JsonSchemaMode] = {}
    for operation in operations:
        if operation.body is not None:
            modes[operation.body] = "validation"
        for reply in operation.replies.values():
            if reply.model is not None:
                modes[reply.model] = "serialization"
    generator = _Schemas(ref_template=_REFERENCES)
    models = list(modes)
    mapped, definitions = generator.generate_definitions(
        [
            (number, modes[model], TypeAdapter(model).core_schema)
            for number, model in enumerate(models)
        ]
    )
    return {model: mapped[number, modes[model]] for number, model in enumerate(models)}, definitions


def _common_replies(operations: Iterable[Operation]) -> dict[Reply, str]:
    """Name the errors that several operations have, so that they are described once."""
    counts = Counter(pair for operation in operations for pair in operation.replies.items())
    return {
        reply: f"Problem{status}"
        for (status, reply), count in counts.items()
        if count > 1 and reply.model is ProblemDocument
    }


def _documented(
    operation: Operation, references: Mapping[Any, Any], common: Mapping[Reply, str]
) -> DocumentedOperation:
    documented = DocumentedOperation(
        tags=[operation.tag.value],
        summary=operation.summary,
        operationId="-".join([operation.method.lower(), *_WORDS.findall(operation.path)]),
        parameters=[
            *_parameters(operation.path_parameters, ParameterLocation.PATH),
            *_parameters(operation.query, ParameterLocation.QUERY),
        ],
        responses={
            str(status): Reference.model_validate({"$ref": _COMMON_REPLY.format(name=name)})
            if (name := common.get(reply))
            else _response(reply, references)
            for status, reply in sorted(operation.replies.items())
        },
        security=_ANY_CREDENTIALS if operation.guarded else [],
    )
    if operation.description:
        documented.description = operation.description
    if operation.body is not None:
        documented.requestBody = RequestBody(
            content={JSON: _media_type(operation.body, references)}, required=True
        )
    return documented


def _parameters(model: type[BaseModel] | None, place: ParameterLocation) -> list[Parameter]:
    if model is None:
        return []
    schema = _inline(model.model_json_schema(by_alias=True, schema_generator=_Schemas))
    required = schema.get("required", [])
    parameters = []
    for name, member in schema.get("properties", {}).items():
        member.pop("title", None)
        parameters.append(
            Parameter.model_validate(
                {
                    "name": name,
                    "in": place,
                    "description": member.pop("description", ""),
                    "required": name in required,
                    "schema": member,
                }
            )
        )
    return parameters


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace references to definitions (of enumerations) by these."""
    definitions = schema.pop("$defs", {})

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            if name in definitions:
                kept = {"type": definitions[name]["type"], "enum": definitions[name]["enum"]}
                return {**kept, **{k: v for k, v in value.items() if k != "$ref"}}
            return {key: replaced(member) for key, member in value.items()}
        return [replaced(member) for member in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = replaced(schema)
    return inlined


def _response(reply: Reply, references: Mapping[Any, Any]) -> Response:
    response = Response(description=reply.description)
    if reply.media_type:
        response.content = {reply.media_type: _media_type(reply.model, references)}
    return response


def _media_type(model: Any, references: Mapping[Any, Any]) -> MediaType:
    if model is None:
        return MediaType()
    return MediaType.model_validate({"schema": references[model]})
