"""The training network computes what transformers' OPT computes from the checkpoint written from it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import OPTForCausalLM

from models.train import minilm
from models.train.network import Decoder, Shape, collate

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Shape(vocabulary=200, positions=64, width=64, layers=2, heads=2, feed_forward=96)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    net = Decoder(SMALL)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


@pytest.fixture(scope="module")
def reference(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> OPTForCausalLM:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    minilm.write_weights(decoder, minilm.encoder_folder(), folder)
    model = OPTForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # The file is bfloat16; the comparison is about arithmetic, so give the network the very same rounded numbers.
    rounded = {name: tensor.to(torch.bfloat16).float() for name, tensor in decoder.state_dict().items()}
    decoder.load_state_dict(rounded)
    return model.eval()


def _sequences(seed: int) -> tuple[list[list[int]], list[list[int]], list[int]]:
    rng = random.Random(seed)
    prefixes = [[rng.randrange(200) for _ in range(rng.randrange(1, 20))] for _ in range(3)]
    owner = [rng.randrange(3) for _ in range(11)]
    return prefixes, [[rng.randrange(200) for _ in range(rng.randrange(1, 30))] for _ in owner], owner


@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_shared_prefix_equals_opt(decoder: Decoder, reference: OPTForCausalLM, seed: int) -> None:
    """Packed suffixes after shared prefixes give OPT's logits for each whole sequence, at every suffix token."""
    prefixes, suffixes, owner = _sequences(seed)
    batch = collate(prefixes, suffixes, owner)
    logits = decoder.logits(decoder(batch))
    for n, suffix in enumerate(suffixes):
        whole = prefixes[owner[n]] + suffix
        expected = reference(torch.tensor([whole])).logits[0, -len(suffix) :]
        start = int(batch.suffix_starts[n])
        torch.testing.assert_close(logits[start : start + len(suffix)], expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_neighbours_do_not_matter(decoder: Decoder) -> None:
    """A suffix's states do not depend on the other suffixes of its batch."""
    prefixes, suffixes, owner = _sequences(5)
    together = collate(prefixes, suffixes, owner)
    states = decoder(together)
    for n, suffix in enumerate(suffixes):
        alone = collate([prefixes[owner[n]]], [suffix], [0])
        found = decoder(alone)[-len(suffix) :]
        start = int(together.suffix_starts[n])
        torch.testing.assert_close(states[start : start + len(suffix)], found, atol=1e-4, rtol=1e-4)


def test_initial_decoder_is_minilm_under_a_causal_mask() -> None:
    """The first token sees only itself under both masks, so a one-token sequence gives MiniLM's own state."""
    from transformers import BertModel  # noqa: PLC0415 - only this test needs it

    folder = minilm.encoder_folder()
    bert = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    decoder = minilm.initial_decoder(folder).eval()
    with torch.inference_mode():
        expected = bert(torch.tensor([[7592]])).last_hidden_state[0]
        found = decoder(collate([[7592]], [[7592]], [0]))[:1]
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)  # OPT's norm epsilon is 1e-5, BERT's 1e-12
