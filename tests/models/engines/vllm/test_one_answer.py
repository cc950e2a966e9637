"""One checkpoint, one answer: every engine on the same thousand real pairs."""

import asyncio
from collections.abc import AsyncIterator

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

from .conftest import CHECKPOINT, VllmServer
from .test_server import OPTIONS

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives

MEAN, P99, FLIPS, NEAR = 0.01, 0.05, 0.01, 0.05


async def probabilities(engine: Engine, requests: list[Prompt]) -> NDArray[np.float32]:
    """Label probabilities of all pairs, float32 [1000, K]."""
    answers = []
    for request in requests:
        scores = await engine.score(request.prefix.ids, [s.ids for s in request.suffixes], Deadline.never())
        assert set(scores.status) == {ItemStatus.OK}
        answers.append(np.exp(scores.logprobs))
    return np.concatenate(answers)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def expected(manifest: Manifest, requests: list[Prompt]) -> NDArray[np.float32]:
    """The float32 reference."""
    engine = await asyncio.to_thread(OnnxEngine.load, CHECKPOINT, manifest, precision="float32")
    await engine.warm_up()
    found = await probabilities(engine, requests)
    await engine.close()
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["onnx-int8", "vllm", "vllm-server"])
async def served(
    request: pytest.FixtureRequest, manifest: Manifest, engine: VllmEngine, server: VllmServer
) -> AsyncIterator[Engine]:
    """Each engine in turn."""
    match request.param:
        case "vllm":
            yield engine
        case "vllm-server":
            pool = VllmServerEngine([server.url], manifest, folder=CHECKPOINT, options=OPTIONS)
            await pool.warm_up()
            yield pool
            await pool.close()
        case _:
            onnx = await asyncio.to_thread(OnnxEngine.load, CHECKPOINT, manifest, precision="int8")
            await onnx.warm_up()
            yield onnx
            await onnx.close()


async def test_the_same_tiers_on_every_engine(
    served: Engine,
    expected: NDArray[np.float32],
    requests: list[Prompt],
    manifest: Manifest,
) -> None:
    """Mean error <= 0.01, p99 <= 0.05, at most 1 % of tiers differ, and only where the tier was a close call."""
    found = await probabilities(served, requests)
    assert found.shape == expected.shape == (1000, len(manifest.tiers))
    errors = np.abs(found - expected).max(axis=1)
    truth = judge(np.log(expected), beta=manifest.beta, temperature=manifest.temperature)
    judged = judge(np.log(found), beta=manifest.beta, temperature=manifest.temperature)
    flipped = truth.tiers != judged.tiers
    report = f"{served.name}: mean {errors.mean():.5f}, p99 {np.quantile(errors, 0.99):.5f}, flips {flipped.mean():.2%}"
    assert errors.mean() <= MEAN, report
    assert np.quantile(errors, 0.99) <= P99, report
    assert flipped.mean() <= FLIPS, report
    assert truth.margins[flipped].max(initial=0.0) < NEAR, report
