"""The description of the API: kept in docs/openapi.json, complete, and with examples that are what they say."""

import json
from pathlib import Path

import pytest
from jsonschema_rs import validator_for

from api.app import create_app

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def description(settings) -> dict:
    return create_app(settings).openapi()


def operations(description):
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_it_is_the_one_that_is_kept(description):
    """A change of the contract is seen in review. If it is meant: make openapi."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(description)) == kept, "run `make openapi` if the change is meant"


def test_every_operation_says_what_it_is(description):
    for name, operation in operations(description):
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name
        assert operation["responses"].keys() & {"200", "201", "202", "204", "206"}, name
        assert "default" in operation["responses"], name


def test_operations_have_names_of_their_own(description):
    names = [operation["operationId"] for _, operation in operations(description)]
    assert len(names) == len(set(names))


def test_bodies_have_examples_that_fit(description):
    for name, operation in operations(description):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        reference = content["schema"].get("$ref") or next(
            part["$ref"] for part in content["schema"]["anyOf"] if "$ref" in part
        )
        schema = description["components"]["schemas"][reference.rsplit("/", 1)[1]]
        assert schema.get("examples"), f"{name}: {reference} has no example"
        validator = validator_for(schema | {"components": description["components"]})
        for example in schema["examples"]:
            validator.validate(example)


def test_problems_are_described(description):
    assert "ProblemDocument" in description["components"]["schemas"]
    assert "HTTPValidationError" not in description["components"]["schemas"]


def test_whatever_asks_for_a_key_says_so(description):
    open_to_all = {"GET /livez", "GET /readyz", "GET /problems/{name}"}
    without = {name for name, operation in operations(description) if not operation.get("security")}
    assert without == open_to_all
