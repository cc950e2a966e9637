"""Reads a Hugging Face checkpoint's safetensors, one file or sharded, bf16, f16 or f32, one tensor at a time."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
import numpy as np
from safetensors import SafetensorError, safe_open

from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Checkpoint:
    """Open weight files of one checkpoint. A context manager: files are mapped until it exits.

    Raises:
        CheckpointError: no weights, an unreadable file, or a tensor that is missing or of another shape.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}
        try:
            for name in self._files():
                file = self._stack.enter_context(safe_open(folder / name, framework="numpy"))
                self._where.update(dict.fromkeys(file.keys(), file))
        except (OSError, SafetensorError) as error:
            self._stack.close()
            raise CheckpointError(f"{folder}: weights are missing or unreadable: {error}") from error

    def _files(self) -> list[str]:
        if (self._folder / SINGLE).is_file():
            return [SINGLE]
        try:
            index = json.loads((self._folder / INDEX).read_bytes())
            return sorted(set(index["weight_map"].values()))
        except FileNotFoundError as error:
            raise CheckpointError(f"{self._folder} holds neither {SINGLE} nor {INDEX}") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{self._folder / INDEX} is not a safetensors index") from error

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def stored(self, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A tensor in the type it is stored in."""
        self._check(name, shape)
        value: NDArray[np.generic] = self._where[name].get_tensor(name)
        return value

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._where:
            raise CheckpointError(f"{self._folder} lacks the tensor {name}")
        found = tuple(self._where[name].get_slice(name).get_shape())
        if found != shape:
            raise CheckpointError(f"{self._folder}: {name} has shape {found}, config.json implies {shape}")

    def tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor as float32."""
        return self.stored(name, shape).astype(np.float32)

    def rows(self, name: str, ids: Sequence[int], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Some rows of a large table as float32, without reading the rest."""
        self._check(name, shape)
        table = self._where[name].get_slice(name)
        return np.concatenate([table[i : i + 1] for i in ids]).astype(np.float32)

    def linear(self, name: str, inputs: int, outputs: int) -> NDArray[np.float32]:
        """A linear layer's weight as float32 [inputs, outputs], i.e. transposed for `x @ w`."""
        return np.ascontiguousarray(self.tensor(name, outputs, inputs).T)

    def bias(self, name: str, outputs: int) -> NDArray[np.float32]:
        """A bias as float32 [outputs]; zeros when the checkpoint has none."""
        return self.tensor(name, outputs) if name in self else np.zeros(outputs, np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
