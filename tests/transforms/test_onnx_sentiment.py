"""A model of the user's own: a small real ONNX classifier with its tokenizer, alone and through Beam."""

import argparse
import functools
import json
import pathlib
import random
import re
from collections.abc import Callable

import apache_beam as beam
import numpy as np
import onnx
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from beam_pipelines import news
from beam_pipelines.article_files import sample_articles
from beam_pipelines.errors import UsageError
from beam_pipelines.io.lake_objects import NEWS_DATA
from beam_pipelines.reading import add_reading_flags, reading_of
from beam_pipelines.stream import ReadBatches, Sinks
from beam_pipelines.transforms.articles import decode
from beam_pipelines.transforms.news import Reading, ScoreArticles, scored_articles
from beam_pipelines.transforms.onnx_sentiment import OnnxModel, load_onnx
from beam_pipelines.transforms.sentiment import category_of
from beam_pipelines.transforms.symbols import packaged_directory

FINBERT = ("positive", "negative", "neutral")  # the order in which ProsusAI/finbert has them
WORDS = ("[PAD]", "[UNK]", *(f"word{number}" for number in range(40)), "beats", "misses", "the", "to", "of", "and")
TOKENS, WIDTH = 512, 8
MAX_FUTURE_MS = 60_000


class Weights:
    """Of a mean of word vectors and a linear layer.

    Attributes:
      words: [len(WORDS), WIDTH].
      classes: [WIDTH, number of classes].
      bias: [number of classes].
    """

    def __init__(self, classes: int = 3) -> None:
        chance = np.random.default_rng(7)
        self.words = chance.normal(size=(len(WORDS), WIDTH)).astype(np.float32)
        self.classes = chance.normal(size=(WIDTH, classes)).astype(np.float32)
        self.bias = chance.normal(size=classes).astype(np.float32)

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """By numpy alone, for the words that the tokenizer keeps."""
        ids = [WORDS.index(word) if word in WORDS else 1 for word in text.split()[:TOKENS]]
        logits = self.words[ids].astype(np.float64).mean(axis=0) @ self.classes + self.bias
        return np.exp(logits) / np.exp(logits).sum()


def graph(weights: Weights, mask: str = "attention_mask") -> onnx.ModelProto:
    """The mean of the vectors of the words that are no padding, and a linear layer."""
    make = onnx.helper.make_node
    constants = {
        "words": weights.words,
        "classes": weights.classes,
        "bias": weights.bias,
        "along": np.array([1], np.int64),
        "across": np.array([2], np.int64),
    }
    nodes = [
        make("Gather", ["words", "input_ids"], ["vectors"]),
        make("Cast", [mask], ["counts"], to=onnx.TensorProto.FLOAT),
        make("Unsqueeze", ["counts", "across"], ["shares"]),
        make("Mul", ["vectors", "shares"], ["unpadded"]),
        make("ReduceSum", ["unpadded", "along"], ["sum"], keepdims=0),
        make("ReduceSum", ["counts", "along"], ["length"], keepdims=1),
        make("Div", ["sum", "length"], ["mean"]),
        make("Gemm", ["mean", "classes", "bias"], ["logits"]),
    ]
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["texts", "tokens"])
        for name in ("input_ids", mask)
    ]
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["texts", "labels"])
    known = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = onnx.helper.make_graph(nodes, "small", inputs, [output], known)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def export(folder: pathlib.Path, labels: tuple[str, ...] = FINBERT, mask: str = "attention_mask") -> Weights:
    """Writes what an export writes."""
    folder.mkdir(exist_ok=True)
    weights = Weights()
    onnx.save(graph(weights, mask), folder / "model.onnx")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"id2label": {str(number): label for number, label in enumerate(labels)}, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return weights


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "small"


@pytest.fixture
def weights(folder: pathlib.Path) -> Weights:
    return export(folder)


@pytest.fixture
def model(folder: pathlib.Path, weights: Weights) -> OnnxModel:
    return load_onnx(folder)


def texts(count: int) -> list[str]:
    """Of one to 700 words, in no order of length."""
    choice = random.Random(3)
    return [" ".join(choice.choices(WORDS[2:], k=choice.choice((1, 2, 5, 30, 700)))) for _ in range(count)]


def test_scores_are_the_probability_of_positive_less_that_of_negative(model, weights):
    for text, found in zip(texts(100), model.score(texts(100)), strict=True):
        positive, negative, _ = weights.probabilities(text)
        assert found.score == pytest.approx(positive - negative, abs=2e-4)
        assert found.score == round(found.score, 4)


def test_the_confidence_is_the_probability_of_the_scores_category(model, weights):
    found = model.score(texts(100))
    assert {category_of(each.score) for each in found} == set(FINBERT)
    for text, each in zip(texts(100), found, strict=True):
        share = weights.probabilities(text)[FINBERT.index(category_of(each.score))]
        assert each.confidence == pytest.approx(share, abs=2e-4)


def test_texts_of_any_length_keep_their_order_in_any_batch(model):
    mixed = texts(100)
    alone = [model.score([text])[0] for text in mixed]
    assert len(set(alone)) > 50
    assert model.score(mixed) == alone
    assert model.score(mixed[::-1]) == alone[::-1]
    assert model.score(mixed[:33]) + model.score(mixed[33:]) == alone
    assert model.score([]) == []


def test_a_long_text_is_cut_to_512_words(model):
    whole = " ".join(["beats"] * TOKENS)
    longer = f"{whole} {' '.join(['misses'] * 5_000)}"
    assert model.score([longer]) == model.score([whole])
    assert model.score(["misses"]) != model.score([whole])


def test_words_that_the_model_does_not_know_are_told_to_it_as_such(model, weights):
    positive, negative, _ = weights.probabilities("[UNK]")
    assert model.score(["übermäßig 🚀"])[0].score == pytest.approx(positive - negative, abs=2e-4)


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_2", "LABEL_0", "LABEL_1"),
        ("Positive", "NEGATIVE", "neutral"),
        ("bullish", "bearish", "neutral"),
        ("pos", "neg", "neu"),
    ],
)
def test_classes_go_by_the_names_that_models_give_them(folder, model, labels):
    export(folder, labels)
    assert load_onnx(folder).score(texts(20)) == model.score(texts(20))


def test_another_order_of_the_classes_is_another_model(folder, model):
    export(folder, ("negative", "positive", "neutral"))
    assert [it.score for it in load_onnx(folder).score(texts(20))] == [-it.score for it in model.score(texts(20))]


def test_its_name_is_its_folders_from_wherever_it_is_named(folder, model, monkeypatch):
    monkeypatch.chdir(folder)
    assert model.name == load_onnx(pathlib.Path(".")).name == "onnx:small"


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD: list[tuple[Callable[[pathlib.Path], object], str]] = [
    (lambda folder: (folder / "model.onnx").unlink(), "model.onnx"),
    (lambda folder: (folder / "config.json").unlink(), "config.json"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "No such file or directory"),
    *(
        (lambda folder, name=name: cut(folder / name), "cannot be loaded")
        for name in ("model.onnx", "config.json", "tokenizer.json")
    ),
    (lambda folder: (folder / "config.json").write_text("[]"), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text("{}"), "id2label"),
    (lambda folder: export(folder, ("positive", "negative", "sarcastic")), "has the class sarcastic, not positive"),
    (lambda folder: export(folder, ("positive", "negative")), "cannot be loaded"),
    (lambda folder: export(folder, ("positive", "negative", "neutral", "neutral")), "cannot be loaded"),
    (lambda folder: export(folder, ("LABEL_0", "LABEL_1")), "has 2 classes without names"),
    (lambda folder: export(folder, mask="position_ids"), "position_ids"),
]


@pytest.mark.parametrize(("spoil", "says"), BAD)
def test_a_folder_that_is_no_model_is_told_in_one_sentence_before_anything_is_scored(folder, weights, spoil, says):
    spoil(folder)
    with pytest.raises(UsageError) as told:
        load_onnx(folder)
    assert says in str(told.value)
    assert str(told.value).startswith(f"sentiment model {folder} cannot be loaded (")
    assert str(told.value).endswith("): export it again")
    assert "\n" not in str(told.value)


# --- through Beam ---


def load(folder: pathlib.Path) -> Reading:
    return Reading(load_onnx(folder), packaged_directory())


def test_run_inference_gives_what_the_kernel_gives(folder, weights):
    raw = list(sample_articles(news.PARTITIONS))
    expected = [scored_articles(decode(batch, MAX_FUTURE_MS).articles, load(folder)) for _, batch in raw]
    rows = sorted((row for batch in expected for row in batch.to_pylist()), key=lambda row: row["article_id"])
    assert len({row["sentiment_score"] for row in rows}) > 5

    def same(found: list[pa.RecordBatch]) -> None:
        assert sorted((row for it in found for row in it.to_pylist()), key=lambda row: row["article_id"]) == rows

    with beam.Pipeline(FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(raw).with_output_types(tuple[int, pa.RecordBatch])
        assert_that((made | ScoreArticles(functools.partial(load, folder), MAX_FUTURE_MS)).articles, same)


def test_the_program_scores_with_the_folder_that_it_is_given(folder, model, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TIMESCALE_DSN", raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    article = {"id": "a", "title": "Apple beats beats", "published_at": 1_795_180_000_000}
    (tmp_path / "a.ndjson").write_text(json.dumps(article))
    flags = [f"--input={tmp_path / 'a.ndjson'}", f"--lake={tmp_path / 'lake'}"]
    assert news.main([*flags, f"--sentiment_model=onnx:{folder}"]) == 0
    printed = capsys.readouterr().out
    score = model.score(["Apple beats beats"])[0].score
    assert re.search(rf"AAPL *│ *{re.escape(f'{score:+.2f}')} *│ {category_of(score)} .*Apple beats beats", printed)
    assert news.main(flags) == 0
    assert f"{score:+.2f}" not in capsys.readouterr().out


def test_rows_name_the_model(folder, weights):
    parser = argparse.ArgumentParser()
    add_reading_flags(parser.add_argument)
    load_named = reading_of(parser.parse_args([f"--sentiment_model=onnx:{folder}"]))

    def named(found: list[pa.RecordBatch]) -> None:
        assert {row["model"] for it in found for row in it.to_pylist()} == {"onnx:small"}

    with beam.Pipeline(FnApiRunner()) as pipeline:
        read = ReadBatches(lambda: sample_articles(news.PARTITIONS))
        built = news.build(pipeline, read, load_named, MAX_FUTURE_MS, Sinks(NEWS_DATA), unbounded=False)
        assert_that(built.articles, named)
