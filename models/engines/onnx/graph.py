"""Writes ONNX graphs: nodes, small constants inside, weights in one external file that several graphs share.

Knows operators and numbers, not models. Linear layers come in two precisions:

- float32: `x @ w + b`.
- int8: weights rounded to signed 8 bits with one scale per output column; activations rounded to unsigned 8 bits around
  zero point 128 with one scale **per row**, taken when the graph runs. A row is a token: nothing about the other rows,
  the other items or the padding can reach it. int32 sums are exact. Channels that are far larger than the others would
  leave those few steps; where their peaks are known (from the checkpoint's canaries), they are evened out before.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Precision

OPSET: Final = 20
IR_VERSION: Final = 10
FUSED: Final = "com.microsoft"  # ONNX Runtime's own operators
_ALIGNMENT: Final = 4096  # external tensors are memory-mapped: page bounds
_SMALLEST: Final = np.float32(1e-30)  # scale of an all-zero row
_MIDDLE: Final = 128
_LOW: Final = 16  # zero point where values have a floor: 239 steps above it, 16 down to it


def quantise_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight [K, N] to int8 with one symmetric scale per column: (int8 [K, N], float32 [N])."""
    scale = np.maximum(np.abs(weight).max(axis=0) / np.float32(127), _SMALLEST).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def evening(peaks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factors [K] by which activations are divided and weight rows multiplied, so that no channel drowns the others.

    The square root of each channel's peak, as in SmoothQuant (arXiv 2211.10438, section 4) with alpha 0.5 and without
    its weight term, which did not help here.
    """
    floored = np.maximum(peaks, peaks.max() / 1000 + _SMALLEST)
    factors: NDArray[np.float32] = np.sqrt(floored / np.median(floored)).astype(np.float32)
    return factors


class WeightFile:
    """One file of raw tensors, written once each, referred to by any number of graphs."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file = file
        self._location = location
        self._protos: dict[str, TensorProto] = {}

    def put(self, name: str, make: Callable[[], NDArray[Any]]) -> TensorProto:
        """The tensor of that name; `make` is called only the first time."""
        if name not in self._protos:
            array = np.ascontiguousarray(make())
            self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
            offset = self._file.tell()
            self._file.write(array.data if array.dtype.kind != "V" else array.tobytes())
            proto = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            proto.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self._location), ("offset", offset), ("length", array.nbytes)):
                proto.external_data.add(key=key, value=str(value))
            self._protos[name] = proto
        return self._protos[name]


class GraphWriter:
    """Appends nodes to one graph. Values are named by strings."""

    def __init__(
        self,
        weights: WeightFile,
        precision: Precision,
        *,
        unsigned: bool = False,
        peaks: Mapping[str, NDArray[np.float32]] | None = None,
        observe: bool = False,
    ) -> None:
        self._weights = weights
        self._precision = precision
        self._unsigned = unsigned
        self._peaks = peaks or {}
        self._observe = observe
        self._observed: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._quantised: dict[str, tuple[str, str, str]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Declare a graph output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, value: object, dtype: type[np.generic]) -> str:
        """A small constant kept inside the graph; equal ones are one."""
        array = np.asarray(value, dtype=dtype)
        name = f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()[:64]}"
        if array.nbytes > 32:  # noqa: PLR2004 - longer than the name can hold
            name += f"_{self._next()}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """A shape or an axis list."""
        return self.constant(values, np.int64)

    def weight(self, name: str, make: Callable[[], NDArray[Any]]) -> str:
        """A tensor in the shared weight file."""
        self._initializers.setdefault(name, self._weights.put(name, make))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        return self.nodes(operator, *inputs, outputs=1, domain=domain, **attributes)[0]

    def nodes(self, operator: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """A node with several outputs."""
        names = [f"{operator}_{self._next()}" for _ in range(outputs)]
        self._nodes.append(
            helper.make_node(
                operator, list(inputs), names, name=f"{operator}_{self._count}", domain=domain, **attributes
            )
        )
        return names

    def _next(self) -> int:
        self._count += 1
        return self._count

    @contextmanager
    def branch(self) -> Iterator[list[onnx.NodeProto]]:
        """Collect the nodes written inside for a subgraph that reads this graph's values."""
        outer, self._nodes = self._nodes, []
        known = dict(self._quantised)
        try:
            yield self._nodes
        finally:
            self._nodes, self._quantised = outer, known

    def either(
        self, condition: str, then: tuple[list[onnx.NodeProto], str], other: tuple[list[onnx.NodeProto], str]
    ) -> str:
        """`If`: run one branch's nodes and take its value."""
        graphs = [
            helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)])
            for name, (nodes, value) in (("then", then), ("other", other))
        ]
        return self.node("If", condition, then_branch=graphs[0], else_branch=graphs[1])

    def linear(
        self,
        x: str,
        name: str,
        make: Callable[[], NDArray[np.float32]],
        bias: NDArray[np.float32] | None = None,
        *,
        source: str | None = None,
        floor: float | None = None,
    ) -> str:
        """`x @ w + b` for rows x [T, K] and a weight float32 [K, N], in this graph's precision.

        Args:
            x: its rows are quantised once, however many layers read it.
            name: of the weight.
            make: reads the weight.
            bias: float32 [N].
            source: a name for x, if its channels may differ so much that int8 should even them out.
            floor: no value of x is below this number <= 0, whatever the input: zero point and scale make use of it.
        """
        if self._precision == "float32":
            y = self.node("MatMul", x, self.weight(f"{name}.f32", make))
        else:
            if self._observe and source is not None and source not in self._observed:
                self._observed.add(source)
                peak = self.node("ReduceMax", self.node("Abs", x), self.ints(0), keepdims=0)
                self.output(peak, source, TensorProto.FLOAT, ["K"])
            evened = evening(self._peaks[source]) if source is not None and source in self._peaks else None
            y = self._integer_product(x, name, make, evened, floor)
        if bias is None:
            return y
        return self.node("Add", y, self.weight(f"{name}.bias", lambda: bias))

    def _integer_product(
        self,
        x: str,
        name: str,
        make: Callable[[], NDArray[np.float32]],
        evened: NDArray[np.float32] | None,
        floor: float | None,
    ) -> str:
        quantised: list[tuple[NDArray[np.int8], NDArray[np.float32]]] = []

        def part(index: Literal[0, 1]) -> NDArray[Any]:
            if not quantised:
                weight = make()
                quantised.append(quantise_columns(weight if evened is None else weight * evened[:, None]))
            return quantised[0][index]

        def shifted() -> NDArray[np.uint8]:
            return (part(0).astype(np.int16) + _MIDDLE).astype(np.uint8)

        if self._unsigned:
            weight, centre = self.weight(f"{name}.u8", shifted), self.constant(_MIDDLE, np.uint8)
        else:
            weight, centre = self.weight(f"{name}.i8", lambda: part(0)), self.constant(0, np.int8)
        columns = self.weight(f"{name}.scale", lambda: part(1))
        if x not in self._quantised:
            even = x if evened is None else self.node("Mul", x, self.constant(1 / evened, np.float32))
            self._quantised[x] = self._quantise_rows(even, floor)
        rows, scale, zero = self._quantised[x]
        one = self.constant(1.0, np.float32)
        y = self.node("MatMulIntegerToFloat", rows, weight, one, columns, zero, centre, domain=FUSED)
        return self.node("Mul", y, scale)

    def _quantise_rows(self, x: str, floor: float | None) -> tuple[str, str, str]:
        """Float rows [T, K] -> (uint8 [T, K], float32 scales [T, 1], the zero point)."""
        axis = self.ints(-1)
        peak = self.node("ReduceMax", x, axis, keepdims=0)
        if floor is None:
            zero, smallest = _MIDDLE, _SMALLEST
            peak = self.node("Max", peak, self.node("Neg", self.node("ReduceMin", x, axis, keepdims=0)))
        else:
            zero = _LOW if floor < 0 else 0
            smallest = np.float32(-floor / zero) if floor < 0 else _SMALLEST
        scale = self.node("Mul", peak, self.constant(1 / (255 - zero), np.float32))
        scale = self.node("Max", scale, self.constant(smallest, np.float32))
        point = self.constant(zero, np.uint8)
        # per-axis quantisation is fast with the axis first, but wants a zero point per row
        points = self.node("Expand", point, self.node("Shape", scale))
        rows = self.node("QuantizeLinear", x, scale, points, axis=0)
        return rows, self.node("Unsqueeze", scale, self.ints(1)), point

    def model(self, name: str) -> bytes:
        """The finished graph, serialised; weights stay in the external file."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tierwise")
        return bytes(model.SerializeToString())


def write_probe() -> bytes:
    """A graph without inputs: `found`, a product of the largest unsigned and signed bytes, and `expected`."""
    depth = 64
    a, b = np.full((16, depth), 255, np.uint8), np.full((depth, 16), 127, np.int8)
    tensors = {"a": a, "b": b, "sums": a.astype(np.int32) @ b.astype(np.int32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMulInteger", ["a", "b"], ["found"]),
            helper.make_node("Identity", ["sums"], ["expected"]),
        ],
        "probe",
        [],
        [helper.make_tensor_value_info(name, TensorProto.INT32, [16, 16]) for name in ("found", "expected")],
        initializer=[numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())
