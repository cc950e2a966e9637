"""The matrix-multiply limit of this machine for the judge's FLOPs: peer (g) of bench/engines.py.

Rates of plain matrix products over a fixed list of shapes, all threads, best of several rounds: int8 through ONNX
Runtime's MatMulInteger, float32 through ONNX Runtime, bfloat16 and float32 through torch.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPES = ((1024, 384, 1152), (1024, 384, 384), (1024, 384, 1536), (1024, 1536, 384))  # rows, K, N
ROUNDS = 5
REPEATS = 20
SECONDS = 1.0  # no further round of one shape after that: emulated bfloat16 would take half a minute


def flops_per_token(checkpoint: Path) -> float:
    """2 x weights outside the embedding, for layers that compute something (the first only carries BERT's norm)."""
    config = json.loads((checkpoint / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["ffn_dim"], config["num_hidden_layers"] - 1
    return float(2 * layers * (4 * width * width + 2 * width * inner))


def attention_flops(tokens: float, context: float, checkpoint: Path) -> float:
    """Query-key and probability-value products of that many tokens, each looking at `context` others on average."""
    config = json.loads((checkpoint / "config.json").read_text())
    return float(4 * (config["num_hidden_layers"] - 1) * config["hidden_size"] * tokens * context)


def rates() -> dict[str, float]:
    """Best operations per second, by arithmetic."""
    return {
        "int8": max(_onnx("MatMulInteger", np.uint8, np.int8, shape) for shape in SHAPES),
        "onnx_float32": max(_onnx("MatMul", np.float32, np.float32, shape) for shape in SHAPES),
        "bfloat16": max(_torch("bfloat16", shape) for shape in SHAPES),
        "float32": max(_torch("float32", shape) for shape in SHAPES),
    }


def _best(run: Callable[[], object], shape: tuple[int, int, int]) -> float:
    rows, inner, columns = shape
    run()
    fastest = float("inf")
    until = time.perf_counter() + SECONDS
    for _ in range(ROUNDS):
        began = time.perf_counter()
        if began > until:
            break
        for _ in range(REPEATS):
            run()
        fastest = min(fastest, (time.perf_counter() - began) / REPEATS)
    return 2.0 * rows * inner * columns / fastest


def _onnx(operator: str, left: type[np.generic], right: type[np.generic], shape: tuple[int, int, int]) -> float:
    import onnxruntime
    from onnx import TensorProto, helper

    rows, inner, columns = shape
    weight = np.random.default_rng(0).integers(-9, 9, (inner, columns)).astype(right)
    kind = helper.np_dtype_to_tensor_dtype
    result = TensorProto.INT32 if left is np.uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "limit",
        [helper.make_tensor_value_info("x", kind(np.dtype(left)), [rows, inner])],
        [helper.make_tensor_value_info("y", result, [rows, columns])],
        [helper.make_tensor("w", kind(np.dtype(right)), weight.shape, weight.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"x": np.ones((rows, inner), left)}
    return _best(lambda: session.run(None, given), shape)


def _torch(dtype: str, shape: tuple[int, int, int]) -> float:
    import torch

    rows, inner, columns = shape
    x = torch.ones(rows, inner, dtype=getattr(torch, dtype))
    w = torch.ones(columns, inner, dtype=getattr(torch, dtype))
    with torch.inference_mode():
        return _best(lambda: torch.nn.functional.linear(x, w), shape)
