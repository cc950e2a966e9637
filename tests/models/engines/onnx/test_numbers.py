"""What the graphs compute, beside a plain float64 reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.engines.onnx.batch import Row
from models.engines.onnx.runner import saturates
from models.tiers import softmax
from tests.models.engines.onnx import checkpoints, reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.engines.onnx.runner import Runner
    from tests.models.engines.onnx.conftest import Tiny

LENGTHS = ((1, (1, 16)), (17, (5, 40, 2)), (33, (33,)))


def prompts() -> list[tuple[list[int], list[list[int]]]]:
    """Prefixes and suffixes on both sides of every padding bound."""
    random = np.random.default_rng(3)

    def draw(length: int) -> list[int]:
        return [int(i) for i in random.integers(0, checkpoints.VOCABULARY, length)]

    return [(draw(prefix), [draw(n) for n in suffixes]) for prefix, suffixes in LENGTHS]


def scored(runner: Runner) -> NDArray[np.float32]:
    """Label logits of all prompts, prefixes in one pass and rows in one pass."""
    cases = prompts()
    computed = runner.prefixes([prefix for prefix, _ in cases])
    rows = [Row(s, kv) for kv, (_, suffixes) in zip(computed, cases, strict=True) for s in suffixes]
    return runner.score(rows)


def expected(tiny: Tiny) -> NDArray[np.float64]:
    """The same by the reference."""
    return np.array(
        [
            reference.logits(tiny.made, prefix + suffix)[list(checkpoints.LABELS)]
            for prefix, suffixes in prompts()
            for suffix in suffixes
        ]
    )


def test_float32_equals_the_reference(tiny: Tiny) -> None:
    """The float32 graph's label logits are the reference's within 1e-4, on every shape."""
    assert np.abs(scored(tiny.runner("float32")) - expected(tiny)).max() < 1e-4


def test_int8_stays_close_to_the_reference(tiny: Tiny) -> None:
    """int8 label probabilities lie near the reference's, on weights far less kind than trained ones."""
    runner = tiny.runner("int8", unsigned=saturates(tiny.cache))  # as the engine opens it
    error = np.abs(softmax(scored(runner)) - softmax(expected(tiny).astype(np.float32)))
    assert error.mean() < 0.02
    assert error.max() < 0.1


def test_unsigned_weights_are_the_same_numbers(tiny: Tiny) -> None:
    """Weights in the form for processors without VNNI give the same logits to the last bit, unless the probe warns."""
    unsigned = scored(tiny.runner("int8", unsigned=True))
    assert saturates(tiny.cache) or np.array_equal(scored(tiny.runner("int8")), unsigned)


def test_decoding_equals_the_reference(tiny: Tiny) -> None:
    """Greedy decoding with cached keys picks the tokens that the reference picks without a cache."""
    runner = tiny.runner("float32")
    prefix, suffixes = prompts()[1]
    ids = prefix + suffixes[0]
    decoding = runner.decode(ids, 20)
    for _ in range(20):
        token = runner.step(decoding)
        assert token == reference.logits(tiny.made, ids).argmax()
        ids.append(token)


def test_an_empty_prefix_is_allowed(tiny: Tiny) -> None:
    """Rows may stand alone."""
    runner = tiny.runner("float32")
    suffix = prompts()[0][1][1]
    found = runner.score([Row(suffix, runner.empty)])[0]
    assert np.abs(found - reference.logits(tiny.made, suffix)[list(checkpoints.LABELS)]).max() < 1e-4


def test_layers_that_add_nothing_are_left_out(mini: Tiny) -> None:
    """A layer whose output projection is zero has no keys to cache; the others have."""
    assert set(mini.runner("int8").empty.arrays) == {"key_1", "value_1", "key_2", "value_2"}
