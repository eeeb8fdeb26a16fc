"""Templates of the pipelines: what each does and what it is told, in the format of Dataflow's flex templates.

A template is a container spec (ContainerSpec of google.dataflow.v1beta3,
https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.flexTemplates/launch).  Those of the
package are made by `launching.generate`; a user may launch one that he has changed.
"""

import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.proto_json import (
    many,
    message,
    number,
    one_of,
    parsed,
    text,
    texts_by_name,
    truth,
    written,
)

__all__ = [
    "BOOLEAN",
    "ENUM",
    "PARAM_TYPES",
    "ContainerSpec",
    "Option",
    "Parameter",
    "Template",
    "ids",
    "packaged",
    "parse_spec",
    "read_environment",
    "to_json",
]

BOOLEAN, ENUM = "BOOLEAN", "ENUM"
PARAM_TYPES = (
    *("DEFAULT", "TEXT", "GCS_READ_BUCKET", "GCS_WRITE_BUCKET", "GCS_READ_FILE", "GCS_WRITE_FILE", "GCS_READ_FOLDER"),
    *("GCS_WRITE_FOLDER", "PUBSUB_TOPIC", "PUBSUB_SUBSCRIPTION", "BIGQUERY_TABLE", "JAVASCRIPT_UDF_FILE"),
    *("SERVICE_ACCOUNT", "MACHINE_TYPE", "KMS_KEY_NAME", "WORKER_REGION", "WORKER_ZONE", BOOLEAN, ENUM, "NUMBER"),
    *("KAFKA_TOPIC", "KAFKA_READ_TOPIC", "KAFKA_WRITE_TOPIC"),
)
"""Kinds of parameters, in the order of their numbers."""

_LANGUAGES = ("UNKNOWN", "JAVA", "PYTHON", "GO", "YAML")


class Option(NamedTuple):
    """A value that a parameter of type ENUM takes."""

    value: str
    label: str = ""
    description: str = ""


class Parameter(NamedTuple):
    """What a pipeline can be told.  The fields are those of ParameterMetadata; "" and () are fields not set."""

    name: str
    label: str = ""
    help_text: str = ""
    is_optional: bool = False
    regexes: tuple[str, ...] = ()  # all of which the whole value must match; RE2
    param_type: str = "DEFAULT"
    enum_options: tuple[Option, ...] = ()
    default_value: str = ""
    group_name: str = ""
    parent_name: str = ""
    parent_trigger_values: tuple[str, ...] = ()
    custom_metadata: Mapping[str, str] = {}  # secret, updatable: "true" or "false"; format: what the value looks like
    hidden_ui: bool = False

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown."""
        return self.custom_metadata.get("secret") == "true"

    @property
    def updatable(self) -> bool:
        """Whether a job that goes on from another's state may be told something else."""
        return self.custom_metadata.get("updatable") != "false"


class Template(NamedTuple):
    """A pipeline that can be launched.  The fields after `id` are those of TemplateMetadata."""

    id: str  # the pipeline's module in beam_pipelines
    name: str
    description: str = ""
    streaming: bool = False
    parameters: tuple[Parameter, ...] = ()
    supports_at_least_once: bool = False
    supports_exactly_once: bool = False
    default_streaming_mode: str = ""

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name, if there is one."""
        return next((it for it in self.parameters if it.name == name), None)


class ContainerSpec(NamedTuple):
    """A template, and the image that launches it on Dataflow."""

    image: str
    template: Template
    sdk_version: str = ""  # of Beam
    default_environment: Mapping[str, Any] = {}  # fields of FlexTemplateRuntimeEnvironment, by their names in camelCase
    image_repository_username_secret_id: str = ""
    image_repository_password_secret_id: str = ""
    image_repository_cert_path: str = ""


_texts = many(text)
_option = message({"value": text, "label": text, "description": text})
_parameter = message(
    {
        "name": text,
        "label": text,
        "helpText": text,
        "isOptional": truth,
        "regexes": _texts,
        "paramType": one_of(PARAM_TYPES),
        "enumOptions": many(_option),
        "defaultValue": text,
        "groupName": text,
        "parentName": text,
        "parentTriggerValues": _texts,
        "customMetadata": texts_by_name,
        "hiddenUi": truth,
    }
)
_metadata = message(
    {
        "name": text,
        "description": text,
        "streaming": truth,
        "parameters": many(_parameter),
        "supportsAtLeastOnce": truth,
        "supportsExactlyOnce": truth,
        "defaultStreamingMode": text,
    }
)
read_environment = message(
    {
        **dict.fromkeys(("numWorkers", "maxWorkers", "diskSizeGb"), number),
        **dict.fromkeys(("enableStreamingEngine", "dumpHeapOnOom", "enableLauncherVmSerialPortLogging"), truth),
        **dict.fromkeys(("additionalExperiments", "additionalPipelineOptions"), _texts),
        "additionalUserLabels": texts_by_name,
        **dict.fromkeys(
            (
                *("zone", "serviceAccountEmail", "tempLocation", "machineType", "network", "subnetwork", "kmsKeyName"),
                *("ipConfiguration", "workerRegion", "workerZone", "flexrsGoal", "stagingLocation"),
                *("sdkContainerImage", "autoscalingAlgorithm", "saveHeapDumpsToGcsPath", "launcherMachineType"),
                "streamingMode",
            ),
            text,
        ),
    }
)
"""Reads a FlexTemplateRuntimeEnvironment; gives the fields that are set, by their names in camelCase."""
_container_spec = message(
    {
        "image": text,
        "metadata": _metadata,
        "sdkInfo": message({"language": one_of(_LANGUAGES), "version": text}),
        "defaultEnvironment": read_environment,
        "imageRepositoryUsernameSecretId": text,
        "imageRepositoryPasswordSecretId": text,
        "imageRepositoryCertPath": text,
    }
)


def ids() -> list[str]:
    """The templates of the package."""
    files = importlib.resources.files("beam_pipelines.infra") / "templates"
    return sorted(file.name.removesuffix(".json") for file in files.iterdir() if file.name.endswith(".json"))


def packaged(template: str) -> ContainerSpec:
    """A template of the package, by its id.

    Raises:
      UsageError: if there is none of that id; names those that there are.
    """
    if template not in ids():
        raise UsageError(f"there is no template {template!r}: give one of {', '.join(ids())}")
    content = (importlib.resources.files("beam_pipelines.infra") / "templates" / f"{template}.json").read_text("utf-8")
    return _spec_of(_container_spec("template", parsed(content, f"template {template}")), template)


def parse_spec(content: str) -> ContainerSpec:
    """The container spec that JSON text holds; its metadata's name says which of the package's templates it is.

    Raises:
      UsageError: names the field that is wrong.
    """
    fields = _container_spec("containerSpec", parsed(content, "the container spec"))
    name = fields.get("metadata", {}).get("name", "")
    known = {packaged(it).template.name: it for it in ids()}
    named = {plain.casefold(): it for name, it in known.items() for plain in (name, it)}
    if name.strip().casefold() not in named:
        raise UsageError(
            f"containerSpec.metadata.name={name!r} is no pipeline of this package: give one of {', '.join(known)}"
        )
    return _spec_of(fields, named[name.strip().casefold()])


def _spec_of(fields: dict[str, Any], template_id: str) -> ContainerSpec:
    metadata, sdk = fields.pop("metadata", {}), fields.pop("sdkInfo", {})
    if sdk.get("language", "PYTHON") != "PYTHON":
        raise UsageError(
            f"containerSpec.sdkInfo.language={sdk['language']} is not that of these pipelines: give PYTHON"
        )
    parameters = tuple(
        _parameter_of(f"containerSpec.metadata.parameters[{index}]", it)
        for index, it in enumerate(metadata.pop("parameters", ()))
    )
    template = Template(id=template_id, parameters=parameters, **_by_field(metadata))
    return ContainerSpec(
        **{"image": "", "template": template, "sdk_version": sdk.get("version", ""), **_by_field(fields)}
    )


def _parameter_of(where: str, fields: dict[str, Any]) -> Parameter:
    if not fields.get("name"):
        raise UsageError(f"{where} has no name: give the flag's, without the dashes")
    for index, regex in enumerate(fields.get("regexes", ())):
        try:
            re.compile(regex)
        except re.error as wrong:
            raise UsageError(f"{where}.regexes[{index}]={regex!r} is no regular expression: {wrong}") from None
    options = tuple(Option(**{"value": "", **it}) for it in fields.pop("enumOptions", ()))
    return Parameter(**_by_field(fields), enum_options=options)


def _by_field(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name): value for name, value in fields.items()}


def to_json(spec: ContainerSpec) -> str:
    """The container spec as the API takes it: names in camelCase, no field that is empty or not known."""
    fields = {
        "image": spec.image,
        "sdkInfo": written({"language": "PYTHON", "version": spec.sdk_version}),
        "metadata": _metadata_to_json(spec.template),
        "defaultEnvironment": written(read_environment("defaultEnvironment", dict(spec.default_environment))),
        "imageRepositoryUsernameSecretId": spec.image_repository_username_secret_id,
        "imageRepositoryPasswordSecretId": spec.image_repository_password_secret_id,
        "imageRepositoryCertPath": spec.image_repository_cert_path,
    }
    return json.dumps(written(fields), indent=2, ensure_ascii=False) + "\n"


def _metadata_to_json(template: Template) -> dict[str, Any]:
    fields = {**template._asdict(), "parameters": [_parameter_to_json(it) for it in template.parameters]}
    del fields["id"]
    return _to_json(fields, "name")


def _parameter_to_json(parameter: Parameter) -> dict[str, Any]:
    options = [_to_json(option._asdict(), "value") for option in parameter.enum_options]
    fields = {**parameter._asdict(), "enum_options": options}
    return _to_json(fields, "name", "helpText")


def _to_json(fields: Mapping[str, Any], *required: str) -> dict[str, Any]:
    by_name = {re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}
    return written(by_name, required)
