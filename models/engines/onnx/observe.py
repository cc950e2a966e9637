"""How large each channel of the activations gets, seen in a few example prompts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from models.engines.onnx.batch import KeysValues, Row, score_feed
from models.engines.onnx.decoder import write_score
from models.engines.onnx.graph import GraphWriter, WeightFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.decoder import Family


def channel_peaks(family: Family, examples: Sequence[Sequence[int]], folder: Path) -> dict[str, NDArray[np.float32]]:
    """Largest absolute value of each channel, by the name of what is quantised: float32 [K] each.

    Runs the plain int8 graph, which is close enough and a quarter of the float32 one's size.

    Args:
        family: the decoder.
        examples: token ids of whole prompts.
        folder: for temporary files.
    """
    a = family.architecture
    with tempfile.TemporaryDirectory(dir=folder) as work:
        graph = Path(work) / "observe.onnx"
        with (Path(work) / "observe.bin").open("wb") as file:
            writer = GraphWriter(WeightFile(file, "observe.bin"), "int8", observe=True)
            graph.write_bytes(write_score(writer, family, labels=[0]))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        cached = [i.name for i in session.get_inputs() if i.name.startswith(("key_", "value_"))]
        none = np.zeros((0, 1, a.key_heads, a.head_size), np.float32)
        empty = KeysValues(0, dict.fromkeys(cached, none))
        names = [o.name for o in session.get_outputs() if o.name != "logits"]
        found = session.run(names, score_feed([Row(ids, empty) for ids in examples], a.positions))
        return dict(zip(names, found, strict=True))
