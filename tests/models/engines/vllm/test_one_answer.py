"""One checkpoint, one answer: every engine on the same thousand real pairs, beside transformers in float32.

What int8 does to the embedded engine is held in tests/models/engines/onnx/test_shipped.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.engines.port import Engine, ItemStatus
from models.engines.vllm import VllmEngine
from models.engines.vllm_server import VllmServerEngine
from models.manifest import Manifest
from models.prompt import Prompt
from models.tiers import judge

from .conftest import CHECKPOINT, Reference

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives

MEAN, P99, FLIPS, NEAR = 0.01, 0.05, 0.01, 0.05


async def label_logprobs(engine: Engine, requests: list[Prompt]) -> NDArray[np.float32]:
    """Label log-probabilities of all pairs, [1000, K]."""
    answers = []
    for request in requests:
        scores = await engine.score(request.prefix.ids, [s.ids for s in request.suffixes], Deadline.never())
        assert set(scores.status) == {ItemStatus.OK}
        answers.append(scores.logprobs)
    return np.concatenate(answers)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def expected(reference: Reference, requests: list[Prompt]) -> NDArray[np.float64]:
    """The float32 reference."""
    prompts = [[*request.prefix.ids, *suffix.ids] for request in requests for suffix in request.suffixes]
    return await asyncio.to_thread(reference.label_logprobs_of, prompts)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["onnx-float32", "vllm", "vllm-server"])
async def served(
    request: pytest.FixtureRequest, manifest: Manifest, engine: VllmEngine, pool: VllmServerEngine
) -> AsyncIterator[Engine]:
    """Each engine in turn."""
    match request.param:
        case "vllm":
            yield engine
        case "vllm-server":
            yield pool
        case _:
            onnx = await asyncio.to_thread(OnnxEngine.load, CHECKPOINT, manifest, precision="float32")
            await onnx.warm_up()
            yield onnx
            await onnx.close()


async def test_the_same_tiers_on_every_engine(
    served: Engine,
    expected: NDArray[np.float64],
    requests: list[Prompt],
    manifest: Manifest,
    record_property: Callable[[str, object], None],
) -> None:
    """Mean error <= 0.01, p99 <= 0.05, at most 1 % of tiers differ, and only where the tier was a close call."""
    found = await label_logprobs(served, requests)
    assert found.shape == expected.shape == (1000, len(manifest.tiers))
    errors = np.abs(np.exp(found) - np.exp(expected)).max(axis=1)
    truth, judged = (
        judge(rows.astype(np.float32), beta=manifest.beta, temperature=manifest.temperature)
        for rows in (expected, found)
    )
    flipped = truth.tiers != judged.tiers
    near = truth.margins[flipped].max(initial=0.0)
    report = (
        f"{served.name}: mean {errors.mean():.5f}, p99 {np.quantile(errors, 0.99):.5f}, "
        f"{flipped.sum()} of {len(flipped)} tiers flip, none farther than {near:.4f} from the boundary"
    )
    record_property("agreement", report)  # in the report that `make test` keeps
    assert errors.mean() <= MEAN, report
    assert np.quantile(errors, 0.99) <= P99, report
    assert flipped.mean() <= FLIPS, report
    assert near < NEAR, report
