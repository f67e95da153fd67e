"""The reference's latents at the input of the driven frames (`reference_input`)."""

from __future__ import annotations

import pytest
import torch

from tests.models.networks import clip, fill, tiny_unet
from xdyna.errors import OptionError

SAMPLE, TIME, TOKENS = clip(2, 4, 4, 6, 8), 300, clip(2, 9, 12, seed=7)


def test_a_new_one_does_nothing_and_learns_at_once() -> None:
    with_it, without = tiny_unet(reference_input=True), tiny_unet()
    problems = with_it.load_state_dict(without.state_dict(), strict=False)
    assert problems.missing_keys == ["reference_in.weight"]
    assert torch.equal(with_it(SAMPLE, TIME, TOKENS), without(SAMPLE, TIME, TOKENS))
    with_it(SAMPLE, TIME, TOKENS)[:, :, 1:].square().mean().backward()
    assert with_it.reference_in is not None
    assert with_it.reference_in.weight.grad.abs().max() > 0


@torch.no_grad()
def test_driven_frames_see_the_reference_where_it_is() -> None:
    """With nothing else between frames, a change of the reference at one place is seen there and nearby."""
    unet = tiny_unet(reference_input=True)
    fill(unet)
    elsewhere = SAMPLE.clone()
    elsewhere[:, :, 0, 2, 5] += 1
    before, after = (unet._enter(sample, 1.0).unflatten(0, (2, 4)) for sample in (SAMPLE, elsewhere))
    changed = (after - before).abs().amax(dim=(0, 2))
    assert changed[1:, 1:4, 4:7].min() > 0
    changed[1:, 1:4, 4:7] = 0
    assert changed[1:].max() == 0
    plain = unet.conv_in(SAMPLE.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4))
    assert torch.equal(before[:, 0], plain[:, 0]), "the reference itself is as it was"
    added = (before - plain)[:, 1:]
    torch.testing.assert_close(added, added[:, :1].expand_as(added))


@torch.no_grad()
def test_the_references_scale_acts_on_it() -> None:
    unet = tiny_unet(reference_input=True)
    fill(unet)
    without = tiny_unet()
    state = {name: value for name, value in unet.state_dict().items() if name != "reference_in.weight"}
    without.load_state_dict(state)
    off = unet(SAMPLE, TIME, TOKENS, reference_scale=0.0)
    assert torch.equal(off, without(SAMPLE, TIME, TOKENS, reference_scale=0.0))
    each = unet(SAMPLE, TIME, TOKENS, reference_scale=torch.tensor([0.0, 1.0]))
    whole = unet(SAMPLE, TIME, TOKENS)
    torch.testing.assert_close(each, torch.stack([off[0], whole[1]]), atol=1e-5, rtol=1e-5)
    assert (whole - off).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("together", [False, True])
def test_guidance_halves_have_it_too(together: bool) -> None:
    unet = tiny_unet(reference_input=True)
    fill(unet)
    halves = [clip(2, 9, 12, seed=seed) for seed in (7, 8)]
    got = unet.halves(SAMPLE, TIME, halves, together=together)
    wanted = torch.cat([unet(SAMPLE, TIME, tokens) for tokens in halves])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", ["reference-net", "ip-adapter"])
def test_it_needs_the_reference_as_a_frame(reference: str) -> None:
    with pytest.raises(OptionError, match="reference_input"):
        tiny_unet(reference=reference, reference_input=True)
