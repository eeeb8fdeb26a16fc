"""Accuracy and macro-F1 of the default sentiment model and of others: python -m tests.bench.sentiment [FOLDER].

FOLDER is one that `--sentiment_model=onnx:` takes, such as tests.bench.minilm makes.

On the test part of Twitter Financial News and on Financial PhraseBank, of which no model here has seen anything.
"""

import contextlib
import io
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Callable

import apache_beam as beam
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from beam_pipelines.runners.defaults import DIRECT_RUNNER
from beam_pipelines.transforms.articles import ARTICLES
from beam_pipelines.transforms.batches import Span, with_span
from beam_pipelines.transforms.language import LANGUAGES
from beam_pipelines.transforms.news import Reading, ScoreValid
from beam_pipelines.transforms.onnx_sentiment import load_onnx
from beam_pipelines.transforms.sentiment import category_of, default_model
from beam_pipelines.transforms.sentiment_model import WeightedModel
from beam_pipelines.transforms.symbols import packaged_directory

from .sentiment_data import LABELS, Labelled, phrasebank, twitter

Labels = Callable[[list[str]], list[str]]
"""Gives each text one of LABELS."""

_POSITIVE = ["bullish", "gains", "profit", "growth", "positive", "up", "rise"]
_NEGATIVE = ["bearish", "losses", "decline", "negative", "down", "fall", "crash"]


def seed(texts: list[str]) -> list[str]:
    """The word lists that the project started from."""
    return [category_of(_seed_score(text)) for text in texts]


def _seed_score(text: str) -> float:
    positive = sum(1 for word in _POSITIVE if word in text.lower())
    negative = sum(1 for word in _NEGATIVE if word in text.lower())
    if positive + negative == 0:
        return 0.0
    return (positive - negative) / (positive + negative)


def _by_compound(compound: float) -> str:
    """The categories that VADER's authors recommend."""
    return "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"


def vader(texts: list[str]) -> list[str]:
    """VADER 3.3.2 (MIT)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [_by_compound(analyzer.polarity_scores(text)["compound"]) for text in texts]


def finvader(texts: list[str]) -> list[str]:
    """finVADER 1.0.4 (Apache-2.0): VADER with SentiBigNomics and Henry's word list."""
    _give_nltk_vader()
    with contextlib.redirect_stderr(io.StringIO()):  # it tries a download and reports that
        from finvader import finvader as score_of
    return [
        _by_compound(score_of(text, use_sentibignomics=True, use_henry=True, indicator="compound")) for text in texts
    ]


def _give_nltk_vader() -> None:
    """Hands NLTK the word list that the package vaderSentiment brings, which finVADER would download."""
    import nltk
    import vaderSentiment

    folder = pathlib.Path(tempfile.mkdtemp()) / "sentiment"
    folder.mkdir()
    words = pathlib.Path(vaderSentiment.__file__).parent / "vader_lexicon.txt"
    with zipfile.ZipFile(folder / "vader_lexicon.zip", "w") as archive:
        archive.write(words, "vader_lexicon/vader_lexicon.txt")
    nltk.data.path.insert(0, str(folder.parent))


def tfidf() -> Labels:
    """TF-IDF of words and pairs with a logistic regression, trained on the training part of Twitter Financial News."""
    training = twitter()[0]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
                          LogisticRegression(C=10, max_iter=1000, class_weight="balanced"))  # fmt: skip
    model.fit([row.text for row in training], [row.label for row in training])
    return lambda texts: list(model.predict(texts))


def ours_by_category(texts: list[str]) -> list[str]:
    """The default model, by the categories that users see."""
    return [category_of(sentiment.score) for sentiment in default_model().score(texts)]


def ours_by_argmax(texts: list[str]) -> list[str]:
    """The default model, by its most probable class."""
    model = default_model()
    assert isinstance(model, WeightedModel)
    return [LABELS[max(range(3), key=model.probabilities(text).__getitem__)] for text in texts]


def by_run_inference(folder: pathlib.Path) -> Labels:
    """A model of ONNX weights, by the categories that users see, in a pipeline as the stream has it."""

    def labels(texts: list[str]) -> list[str]:
        rows = [_article(number, text) for number, text in enumerate(texts)]
        span = Span("labelled", 0, 0, len(rows))
        articles = with_span(pa.RecordBatch.from_pylist(rows, ARTICLES), span)
        with tempfile.TemporaryDirectory() as temporary:
            given = pathlib.Path(temporary, "given")
            with beam.Pipeline(DIRECT_RUNNER) as pipeline:
                scored = pipeline | beam.Create([(0, articles)]) | ScoreValid(lambda: _reading(folder))
                scored | beam.Map(lambda batch: given.write_text("\n".join(batch["sentiment_category"].to_pylist())))
            return given.read_text().splitlines()

    return labels


def _reading(folder: pathlib.Path) -> Reading:
    return Reading(load_onnx(folder), packaged_directory(), LANGUAGES)


def _article(number: int, text: str) -> dict[str, object]:
    texts = {"article_id": str(number), "provider_id": str(number), "title": text, "content": "", "source": "labelled"}
    rest = {"published_at": 0, "log_time": 0, "partition": 0, "offset": number, "symbols": [], "categories": []}
    return texts | rest | {"kind": "news"}


def accuracy_and_f1(labels: Labels, rows: list[Labelled]) -> tuple[float, float]:
    """Accuracy and macro-F1 of `labels` on labelled texts."""
    given = labels([row.text for row in rows])
    expected = [row.label for row in rows]
    return accuracy_score(expected, given), f1_score(expected, given, labels=LABELS, average="macro")


def main() -> None:
    """Prints the table."""
    sets = {"Twitter test part": twitter()[1], "PhraseBank": phrasebank()}
    models: dict[str, Labels] = {
        "word lists of the start": seed,
        "VADER": vader,
        "finVADER": finvader,
        "TF-IDF + logistic regression": tfidf(),
        "ours by category (±0.3)": ours_by_category,
        "ours by argmax": ours_by_argmax,
    }
    if sys.argv[1:]:
        models[f"{pathlib.Path(sys.argv[1]).name}, through RunInference"] = by_run_inference(pathlib.Path(sys.argv[1]))
    heads = [f"{name} ({len(rows):,}) {measure}" for name, rows in sets.items() for measure in ("accuracy", "macro-F1")]
    print("| model |", " | ".join(heads), "|")
    print("|---|" + "---|" * len(heads))
    for name, labels in models.items():
        figures = [figure for rows in sets.values() for figure in accuracy_and_f1(labels, rows)]
        print(f"| {name} |", " | ".join(f"{figure:.3f}" for figure in figures), "|", flush=True)


if __name__ == "__main__":
    main()
