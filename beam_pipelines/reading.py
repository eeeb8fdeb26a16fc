"""What news is read with, by flags: the sentiment model, the languages that it reads, and the ticker directory."""

import argparse
import functools
import pathlib
from collections.abc import Callable

from beam_pipelines.command_line import Kind, filled_as
from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.language import LANGUAGES
from beam_pipelines.transforms.news import Reading
from beam_pipelines.transforms.sentiment import SentimentModel, default_model
from beam_pipelines.transforms.symbols import Directory, packaged_directory, read_directory

__all__ = ["add_reading_flags", "reading_of"]

_DEFAULT, _ONNX = "default", "onnx:"


def add_reading_flags(flag: Callable[..., object]) -> None:
    """What the rows of the news depend on."""
    model = "model: default, or onnx:FOLDER of model.onnx, tokenizer.json and config.json, as FinBERT's (%(default)s)"
    flag("--sentiment_model", type=_MODEL, default=_DEFAULT, help=model)
    flag("--languages", type=_LANGUAGES, default=frozenset({"en"}), help="languages of the model, as en,de,... (en)")
    tickers = "ticker directory of your own, CSV with symbol,name,also, or the SEC's or Nasdaq's; workers must find it"
    flag("--tickers", type=_TICKERS, action="append", help=tickers)


def _model(text: str) -> str:
    if text == _DEFAULT or (text.startswith(_ONNX) and text != _ONNX):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no model: give {_DEFAULT}, or {_ONNX}FOLDER")


_MODEL = Kind(
    _model,
    f"{_DEFAULT}, or {_ONNX}FOLDER",
    rf"{_DEFAULT}|{_ONNX}.*\S.*",
    (_DEFAULT, f"{_ONNX}/models/finbert"),
    ("", "bert", _ONNX),
)


def _languages(text: str) -> frozenset[str]:
    asked = frozenset(code.strip().lower() for code in text.split(","))
    unknown = sorted(asked - LANGUAGES)
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no language that is told apart: give ISO 639-1 codes")
    return asked


_LANGUAGES = Kind(
    _languages,
    "codes of ISO 639-1 as en,de",
    " *[a-zA-Z]{2,3} *(, *[a-zA-Z]{2,3} *)*",
    ("en", "EN, de,fr"),
    ("", "english", "en,"),
)
_TICKERS = filled_as("the path of a file, without commas", r"\s*[^\s,][^,]*", "tickers.csv", "/company tickers.json")


def reading_of(options: argparse.Namespace) -> Callable[[], Reading]:
    """Gives, where it is called, what the flags name; it is tried here first.

    Raises:
      UsageError: if a file is missing or wrong.
    """
    load = functools.partial(_reading, options.sentiment_model, options.languages, tuple(options.tickers or ()))
    load()
    return load


@functools.cache
def _reading(model: str, languages: frozenset[str], tickers: tuple[str, ...]) -> Reading:
    return Reading(_model_of(model), _directory_of(tickers), languages)


def _model_of(name: str) -> SentimentModel:
    if name == _DEFAULT:
        return default_model()
    folder = pathlib.Path(name.removeprefix(_ONNX))
    if not folder.is_dir():
        raise UsageError(f"--sentiment_model={name}: there is no folder {folder}: correct it")
    try:
        from beam_pipelines.transforms.onnx_sentiment import load_onnx
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"--sentiment_model={name} needs {missing.name}: pip install 'waardhaven-pipelines[onnx]'"
        ) from None
    return load_onnx(folder)


def _directory_of(tickers: tuple[str, ...]) -> Directory:
    return read_directory(*tickers) if tickers else packaged_directory()
