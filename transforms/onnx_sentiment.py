"""Sentiment by a model of your own, such as FinBERT: ONNX weights with a Hugging Face tokenizer.

The folder is what `optimum-cli export onnx --task text-classification` writes: model.onnx, tokenizer.json, and
config.json whose `id2label` names the classes.  Texts are scored in batches of like length.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.sentiment import Sentiment, category_of

__all__ = ["OnnxModel", "load_onnx"]

_BATCH = 32
_TOKENS = 512  # that models of BERT's family take
_DECIMALS = 4
_CLASSES = {  # by the names that models give them
    **dict.fromkeys(("positive", "bullish", "pos", "label_2"), 1),
    **dict.fromkeys(("neutral", "neu", "label_1"), 0),
    **dict.fromkeys(("negative", "bearish", "neg", "label_0"), -1),
}


class OnnxModel:
    """A classifier of texts into negative, neutral and positive.

    Args:
      name: name of the folder.
      session: the weights.
      tokenizer: cuts and pads texts.
      signs: -1, 0 or 1 for each class that the model knows.
    """

    def __init__(
        self, name: str, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, signs: Sequence[int]
    ) -> None:
        self.name = name
        self._session, self._tokenizer, self._signs = session, tokenizer, np.array(signs)
        self._inputs = [each.name for each in session.get_inputs()]

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """The sentiment of each text, in order."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # so that little is padding
        found: dict[int, Sentiment] = {}
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            found |= zip(chosen, self._batch([texts[at] for at in chosen]), strict=True)
        return [found[at] for at in range(len(texts))]

    def _batch(self, texts: list[str]) -> list[Sentiment]:
        encoded = self._tokenizer.encode_batch(texts)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        feeds = {name: np.array([getattr(it, columns[name]) for it in encoded], np.int64) for name in self._inputs}
        probabilities = _softmax(self._session.run(None, feeds)[0].astype(np.float64))
        negative, neutral, positive = (probabilities[:, self._signs == sign].sum(axis=1) for sign in (-1, 0, 1))
        return list(map(_sentiment_of, negative.tolist(), neutral.tolist(), positive.tolist()))


def _sentiment_of(negative: float, neutral: float, positive: float) -> Sentiment:
    score = round(positive - negative, _DECIMALS)
    by_category = {"negative": negative, "neutral": neutral, "positive": positive}
    return Sentiment(score, round(by_category[category_of(score)], _DECIMALS))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def load_onnx(folder: pathlib.Path) -> OnnxModel:
    """The model of a folder.

    Raises:
      UsageError: if a file is missing or is not what it should be.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = 1  # a worker a core
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), threads)
        tokenizer.enable_truncation(_TOKENS)
        tokenizer.enable_padding(pad_id=config.get("pad_token_id") or 0)
        model = OnnxModel(f"onnx:{folder.resolve().name}", session, tokenizer, _signs_of(config))
        model.score(["tried here, not in a worker"])
    except Exception as error:  # whatever the libraries raise, which have no exceptions in common
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"sentiment model {folder} cannot be loaded ({why}): export it again") from None
    return model


def _signs_of(config: dict[str, Any]) -> list[int]:
    labels = {int(number): str(label).lower() for number, label in config["id2label"].items()}
    unknown = sorted(set(labels.values()) - _CLASSES.keys())
    if unknown:
        raise ValueError(f"config.json has the class {unknown[0]}, not positive, neutral or negative")
    if "label_0" in labels.values() and len(labels) != 3:
        raise ValueError(f"config.json has {len(labels)} classes without names, which only three say by their numbers")
    return [_CLASSES[labels[number]] for number in range(len(labels))]
