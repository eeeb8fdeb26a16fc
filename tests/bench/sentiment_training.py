"""Trains the default sentiment model and writes its weights: python -m tests.bench.sentiment_training.

The same input gives the same file on the same machine; elsewhere numpy may sum in another order, and a weight differ by
a unit or so.  Neither the test part of Twitter Financial News nor Financial PhraseBank is used.
"""

import math
import pathlib
from collections import Counter
from itertools import pairwise

import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from beam_pipelines.transforms.finance_events import events_of
from beam_pipelines.transforms.sentiment_model import MAX_EVENTS, UNIT
from beam_pipelines.transforms.tokens import classes_of, tokens_of

from .sentiment_data import LABELS, Labelled, own_sentences, twitter

WEIGHTS = pathlib.Path(__file__).parents[2] / "transforms" / "data" / "sentiment_weights.txt"
HEADER = """\
# finance-ngrams-rules 1
# Evidence for negative and for positive against neutral, in 1/1024 of log odds, by word, pair of words or event.
# Made by tests/bench/sentiment_training.py from the training part of zeroshot/twitter-financial-news-sentiment (MIT)
# and from tests/bench/data/sentiment_sentences.tsv (written for this project, Apache-2.0).
"""
_WORD_SCALE = 4.0  # against events: a larger one is a weaker penalty
_C = 0.5
_LEAST_TEXTS = 2  # that hold a word or pair
_LEAST_WEIGHT = 8


def features(text: str) -> dict[str, float]:
    """The features of a text by name, as the model sums them."""
    tokens = tokens_of(text)
    classes = classes_of(tokens)
    share = _WORD_SCALE / math.sqrt(len(tokens) or 1)
    pairs = [" ".join(pair) for pair in pairwise(classes)]
    found = dict.fromkeys(classes + pairs, share)
    return found | {name: min(count, MAX_EVENTS) for name, count in Counter(events_of(tokens, classes)).items()}


def train(rows: list[Labelled]) -> dict[str, tuple[int, int]]:
    """The weights of the model by feature, given labelled texts."""
    found = [features(row.text) for row in rows]
    texts = Counter(name for each in found for name in each)
    columns = {name: at for at, name in enumerate(sorted(name for name in texts if texts[name] >= _LEAST_TEXTS))}
    labels = [LABELS.index(row.label) for row in rows]
    with threadpool_limits(1):  # sums in one order
        model = LogisticRegression(C=_C, max_iter=2000, tol=1e-7).fit(_matrix(found, columns), labels)
    against_neutral = (model.coef_ - model.coef_[1])[[0, 2]] * UNIT
    scales = np.array([1.0 if name.startswith("<") else _WORD_SCALE for name in columns])
    rounded = np.rint(against_neutral * scales).astype(int).T.tolist()
    bias = np.rint((model.intercept_ - model.intercept_[1])[[0, 2]] * UNIT).astype(int).tolist()
    kept = {
        name: tuple(pair) for name, pair in zip(columns, rounded, strict=True) if max(map(abs, pair)) >= _LEAST_WEIGHT
    }
    return {"": tuple(bias), **kept}


def _matrix(found: list[dict[str, float]], columns: dict[str, int]) -> scipy.sparse.csr_matrix:
    known = [{columns[name]: value for name, value in each.items() if name in columns} for each in found]
    ends = np.cumsum([0, *map(len, known)])
    data = [value for each in known for value in each.values()]
    return scipy.sparse.csr_matrix((data, [at for each in known for at in each], ends), (len(found), len(columns)))


def default_weights() -> dict[str, tuple[int, int]]:
    """The weights of the default model."""
    return train(twitter()[0] + own_sentences())


if __name__ == "__main__":
    lines = [f"{name}\t{bad}\t{good}\n" for name, (bad, good) in sorted(default_weights().items())]
    WEIGHTS.write_text(HEADER + "".join(lines), "utf-8")
    print(f"wrote {WEIGHTS.name}: {WEIGHTS.stat().st_size:,} bytes")
