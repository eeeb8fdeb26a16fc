"""What Dataflow needs to launch a template: a container spec, and the Dockerfile of the image that it names.

One image launches the job and works for it, as in
https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates: Beam's SDK, the launcher of flex
templates, this package, and a program for the launcher to start, whose main is `program`.
"""

import functools
import importlib
import pathlib
import re
from collections.abc import Callable, Sequence

from beam_pipelines.errors import UsageError
from beam_pipelines.launching.parameters import argv_of
from beam_pipelines.launching.templates import packaged, to_json

__all__ = ["build", "program"]

_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?"
_PATH = r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"({_HOST}/)?{_PATH}(/{_PATH})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?", re.ASCII)

_DOCKERFILE = """\
# The image of the template {template}, which launches its jobs on Dataflow and works for them.  In a checkout:
#   docker build --file {folder}/Dockerfile --tag {image} .
#   docker push {image}
# Then put {template}.json where launch requests find it: gcloud storage cp {folder}/{template}.json gs://...
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:latest AS launcher
FROM apache/beam_python3.11_sdk:{sdk_version}

COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY . /source
RUN pip install --no-cache-dir --constraint /source/infra/constraints.txt '/source[gcp]' && rm -r /source

# Not the pipeline's own module: Python would look for its imports among that one's neighbours first.
RUN mkdir /template && printf '%s\\n' \\
    'from beam_pipelines.errors import run_main' \\
    'from beam_pipelines.launching.image import program' \\
    'run_main(program("{template}"))' > /template/main.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py

# Of the SDK's image, and said again: workers start with it, and Dataflow starts the launcher by its path.
ENTRYPOINT ["/opt/apache/beam/boot"]
"""
_SOURCES = ("README.md", "beam_pipelines", "infra", "io", "pyproject.toml", "runners", "setup.py", "sql", "transforms")
_IGNORED = "\n".join(["*", *(f"!{name}" for name in _SOURCES), "**/__pycache__", ""])


def build(template: str, image: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the template's container spec, a Dockerfile, and what of a checkout does not go into the image.

    Args:
      template: its id.
      image: name of the image, which need not be there yet.
      folder: where to write; is made if it is not there.

    Returns:
      The files: T.json, Dockerfile, Dockerfile.dockerignore.

    Raises:
      UsageError: if there is no such template, `image` is no name of one, or the folder cannot be written.
    """
    spec = packaged(template)
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"image={image!r} is no name of an image: give one as HOST/PROJECT/REPOSITORY/{template}:1.0")
    spec = spec._replace(image=image, default_environment={**spec.default_environment, "sdkContainerImage": image})
    dockerfile = _DOCKERFILE.format(template=template, image=image, folder=folder, sdk_version=spec.sdk_version)
    contents = {f"{template}.json": to_json(spec), "Dockerfile": dockerfile, "Dockerfile.dockerignore": _IGNORED}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_text(content, "utf-8")
    except OSError as failed:
        raise UsageError(f"folder {folder} cannot be written ({failed.strerror}): give another") from None
    return [folder / name for name in contents]


def program(template: str) -> Callable[[Sequence[str]], int]:
    """What the image runs: takes parameters and Beam's options as the launcher of flex templates gives them."""
    return functools.partial(_launched, template)


def _launched(template: str, words: Sequence[str]) -> int:
    """Runs the pipeline; a parameter is a word --name=value, also where the pipeline has a flag without a value.

    Raises:
      Mistakes: if any parameter cannot be used.
    """
    known = packaged(template).template
    parameters: dict[str, str] = {}
    others = []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and equals and known.parameter(name):
            parameters[name] = value
        else:
            others.append(word)
    argv = [*argv_of(known, parameters), *others]
    code: int = importlib.import_module(f"beam_pipelines.{template}").main(argv)
    return code
