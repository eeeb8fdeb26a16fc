"""Templates as JSON: the format of the Dataflow API, read leniently and written strictly."""

import json
import pathlib
import re
from typing import Any

import jsonschema
import pytest

from beam_pipelines.errors import UsageError
from beam_pipelines.launching import templates
from beam_pipelines.launching.templates import ContainerSpec, Option, Parameter, Template, packaged, parse_spec, to_json

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = ROOT.parent / "shared" / "flex_template_fields.json"
PIPELINES = ("daily", "market", "news")
KNOWN = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "jobs.Job": {"type": "object"},
}


@pytest.fixture(scope="module")
def fields() -> dict[str, Any]:
    if not FIELDS.is_file():
        pytest.skip(f"the API's fields are not there: {FIELDS}")
    described: dict[str, Any] = json.loads(FIELDS.read_text())
    return described


@pytest.fixture(scope="module")
def schema(fields: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of ContainerSpec, of what the API's own client says of its fields."""
    messages = {name: it for name, it in fields.items() if isinstance(it, dict)}
    definitions = {name: message_schema(it, messages) for name, it in messages.items()}
    enums = {name.split(".")[-1]: {"enum": names} for name, names in fields.items() if isinstance(names, list)}
    made = {"$ref": "#/$defs/ContainerSpec", "$defs": {**definitions, **enums}}
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def message_schema(message: dict[str, Any], messages: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: type_schema(it["type"], messages) for name, it in message.items()},
        "required": [name for name, it in message.items() if it["doc"].startswith("Required.")],
        "additionalProperties": False,
    }


def type_schema(named: str, messages: dict[str, Any]) -> dict[str, Any]:
    name = named.strip('"')
    if name == "MutableMapping[str, str]":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if found := re.fullmatch(r"MutableSequence\[(.+)\]", name):
        return {"type": "array", "items": type_schema(found[1], messages)}
    if name in messages or name in ("ParameterType", "Language"):
        return {"$ref": f"#/$defs/{name}"}
    if name.startswith("gd_environment."):  # enums of another file
        return {"type": "string"}
    return KNOWN[name]


def content(pipeline: str) -> Any:
    return json.loads((ROOT / "infra" / "templates" / f"{pipeline}.json").read_text())


def validate(written: object, schema: dict[str, Any]) -> None:
    jsonschema.validate(written, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_each_template_is_what_the_api_takes(pipeline: str, schema: dict[str, Any]) -> None:
    validate(content(pipeline), schema)
    assert content(pipeline)["metadata"]["parameters"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"isOptional": true', '"is_optional": true'),
        ('"isOptional": true', '"isOptional": "true"'),
        ('"paramType": "NUMBER"', '"paramType": "INTEGER"'),
        ('"language": "PYTHON"', '"language": "python"'),
        ('"name": "lake",', ""),
        ('"image": ', '"container": '),
        ('"updatable": "false"', '"updatable": false'),
    ],
)
def test_the_schema_refuses_what_the_api_does(old: str, new: str, schema: dict[str, Any]) -> None:
    text = json.dumps(content("market"))
    assert old in text
    with pytest.raises(jsonschema.ValidationError):
        validate(json.loads(text.replace(old, new, 1)), schema)


def test_what_is_known_of_the_api_is_all_that_it_has(fields: dict[str, Any]) -> None:
    assert list(templates.PARAM_TYPES) == fields["ParameterType"]
    assert list(templates._LANGUAGES) == fields["SDKInfo.Language"]
    every = {
        name: {"str": "x", "bool": True, "int": 3, "MutableMapping[str, str]": {"a": "b"}}.get(it["type"], ["x"])
        for name, it in fields["FlexTemplateRuntimeEnvironment"].items()
        if not it["type"].startswith("gd_")
    }
    every |= dict.fromkeys(("ipConfiguration", "flexrsGoal", "autoscalingAlgorithm", "streamingMode"), "X")
    assert every.keys() == fields["FlexTemplateRuntimeEnvironment"].keys()
    read = templates.read_environment("environment", every)
    assert json.loads(json.dumps(read)) == every


def test_the_package_has_a_template_for_each_pipeline() -> None:
    assert templates.ids() == list(PIPELINES)
    with pytest.raises(UsageError, match=r"no template 'markets': give one of daily, market, news"):
        packaged("markets")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_what_is_read_and_written_is_the_same(pipeline: str) -> None:
    text = (ROOT / "infra" / "templates" / f"{pipeline}.json").read_text()
    assert to_json(packaged(pipeline)) == text
    assert parse_spec(text) == packaged(pipeline)
    assert packaged(pipeline).template.id == pipeline


def as_people_write(value: Any, in_map: bool = False) -> Any:
    """The same spec with names in snake_case, truth values and enums otherwise, and fields that nobody knows."""
    if isinstance(value, list):
        return [as_people_write(it) for it in value]
    if isinstance(value, bool):
        return str(value).upper() if value else "False"
    if not isinstance(value, dict):
        return value
    if in_map:
        return value
    written = {}
    for name, it in value.items():
        snake = re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)
        written[snake] = as_people_write(it, in_map=name == "customMetadata")
    if "param_type" in written:
        written["param_type"] = templates.PARAM_TYPES.index(written["param_type"])
    if "language" in written:
        written["language"] = "python"
    return {**written, "default_streaming_mode": None, "noted_by": {"somebody": [1]}}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_reading_is_lenient_and_writing_is_strict(pipeline: str, schema: dict[str, Any]) -> None:
    messy = json.dumps(as_people_write(content(pipeline)))
    assert '"is_optional": "TRUE"' in messy
    spec = parse_spec(messy)
    assert spec == packaged(pipeline)
    validate(json.loads(to_json(spec)), schema)
    assert json.loads(to_json(spec)) == content(pipeline)


def test_values_become_texts_where_the_format_has_texts() -> None:
    parameter = {"name": "bar_seconds", "defaultValue": 60, "regexes": ["[0-9]+"], "isOptional": "true"}
    spec = parse_spec(json.dumps({"metadata": {"name": "market", "parameters": [parameter]}}))
    assert spec.template.id == "market"
    assert spec.template.parameters[0] == Parameter(
        "bar_seconds", default_value="60", regexes=("[0-9]+",), is_optional=True
    )


def test_fields_that_are_empty_or_unknown_are_not_written() -> None:
    parameter = Parameter("x", "", "", False, (), "ENUM", (Option("a"), Option("b", "B")))
    spec = ContainerSpec("", Template("market", "Market stream", parameters=(parameter,)), "", {"what": 1, "zone": ""})
    assert json.loads(to_json(spec)) == {
        "sdkInfo": {"language": "PYTHON"},
        "metadata": {
            "name": "Market stream",
            "parameters": [
                {
                    "name": "x",
                    "helpText": "",
                    "paramType": "ENUM",
                    "enumOptions": [{"value": "a"}, {"value": "b", "label": "B"}],
                }
            ],
        },
    }


MARKET = '{"metadata": {"name": "Market stream", "parameters": [%s]}}'
WRONG = [
    ("{", "the container spec is no JSON: "),
    ("[]", "containerSpec must be an object, not []"),
    ("{}", "containerSpec.metadata.name='' is no pipeline of this package: give one of Daily batch, Market stream"),
    ('{"metadata": {"name": "Word count"}}', "containerSpec.metadata.name='Word count' is no pipeline"),
    ('{"metadata": []}', "containerSpec.metadata must be an object, not []"),
    ('{"metadata": {"name": "market"}, "sdkInfo": {"language": "JAVA"}}', "containerSpec.sdkInfo.language=JAVA is"),
    ('{"metadata": {"name": "market"}, "sdkInfo": {"language": 9}}', "containerSpec.sdkInfo.language must be one of"),
    (
        '{"metadata": {"name": "market"}, "defaultEnvironment": {"numWorkers": "x"}}',
        "numWorkers must be a whole number",
    ),
    (MARKET % "{}", "containerSpec.metadata.parameters[0] has no name"),
    (MARKET % '{"name": []}', "containerSpec.metadata.parameters[0].name must be a text, not []"),
    (MARKET % '{"name": "x", "isOptional": "yes"}', 'parameters[0].isOptional must be true or false, not "yes"'),
    (MARKET % '{"name": "x", "is_optional": true, "isOptional": true}', "has the field isOptional twice"),
    (MARKET % '{"name": "x", "regexes": "a"}', 'parameters[0].regexes must be a list, not "a"'),
    (MARKET % '{"name": "x", "regexes": ["a", "("]}', "parameters[0].regexes[1]='(' is no regular expression"),
    (MARKET % '{"name": "x", "paramType": "INT"}', "parameters[0].paramType must be one of DEFAULT, TEXT"),
    (MARKET % '{"name": "x", "customMetadata": {"a": []}}', "parameters[0].customMetadata.a must be a text, not []"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as mistake:
        parse_spec(text)
    assert len(str(mistake.value)) < 500
