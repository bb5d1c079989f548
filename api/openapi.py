"""The description of the API. `python -m api.openapi` prints it, as docs/openapi.json keeps it."""

import json
import sys
from typing import Any

from fastapi import FastAPI

from api.problems import MEDIA_TYPE, ProblemDocument

_REFERENCE = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: _REFERENCE}}
    for status, description in {422: "The request's content cannot be accepted", "default": "Any other problem"}.items()
}
"""What every route may answer besides what it says itself."""


def install(app: FastAPI) -> None:
    """Put the problem document into the description, which knows only what routes return."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        description = generate()
        schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(schema.pop("$defs", {}), ProblemDocument=schema)
        return description

    app.openapi = openapi


def main() -> None:
    """Print the description."""
    from api.app import create_app

    json.dump(create_app().openapi(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
