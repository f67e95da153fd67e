from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from torch import Tensor

from tests.models.networks import clip, fill, tiny_unet
from tests.tiny import tiny_components
from xdyna.errors import WeightsError
from xdyna.models import REFERENCES, Denoiser, ReferenceEncoder, ReferenceNet, Resampler
from xdyna.sampling import ControlResiduals, Controls, Networks, Tokens, predict

FRAMES, SIDE = 3, 8
NOISY, REFERENCE = clip(2, 4, FRAMES, SIDE, SIDE), clip(2, 4, SIDE, SIDE, seed=5)
POSE = torch.rand(2, FRAMES, 3, 8 * SIDE, 8 * SIDE, generator=torch.Generator().manual_seed(6))
FACE = torch.rand(2, FRAMES, 6, 8 * SIDE, 8 * SIDE, generator=torch.Generator().manual_seed(7))
TIME = torch.tensor([30, 700])


def tiny_denoiser(reference: str = "dynamics-adapter", **changes: Any) -> Denoiser:
    parts = tiny_components(reference=reference) | changes
    return Denoiser(**{name: part for name, part in parts.items() if name not in ("vae", "scheduler")})


def text_denoiser(reference: str) -> Denoiser:
    """As in full size: text, CLIP's image features, ControlNets that read text; widths 8 and 16."""
    unet = tiny_unet(reference=reference)
    control = ControlNetModel(
        conditioning_channels=3,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 4, 8, 8),
    )
    projector = Resampler(dim=8, depth=1, dim_head=4, heads=2, num_queries=4, embedding_dim=10, output_dim=12)
    net = ReferenceNet.for_denoiser(unet) if unet.reads_features else None
    denoiser = Denoiser(unet, pose_controlnet=control, image_projector=projector, reference_net=net)
    fill(denoiser)
    return denoiser.eval()


OWN_POSE = torch.rand(2, 3, 8 * SIDE, 8 * SIDE, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("own_pose", [None, OWN_POSE])
@pytest.mark.parametrize("reference", REFERENCES)
def test_it_predicts_what_sampling_predicts(reference: str, own_pose: Tensor | None) -> None:
    denoiser, time = tiny_denoiser(reference), torch.tensor(400)
    fill(denoiser)
    with torch.no_grad():
        got = denoiser(
            NOISY,
            time,
            reference=REFERENCE,
            pose=POSE,
            face=FACE,
            reference_scale=0.7,
            reference_pose=own_pose,
        )
        features = None if denoiser.reference_net is None else denoiser.reference_net(REFERENCE)
        encoder = denoiser.reference_encoder
        half = Tokens(image=None if encoder is None else encoder(REFERENCE))
        residuals = ControlResiduals(
            Networks(denoiser.unet, denoiser.pose_controlnet, denoiser.face_controlnet),
            Controls(
                lambda frames: POSE[:, list(frames)],
                lambda frames: FACE[:, list(frames)],
                reference_pose=own_pose,
            ),
            NOISY,
            time,
            [half],
            [list(range(FRAMES))],
            REFERENCE,
        )
        down, mid = residuals.of_window(0)
        wanted = predict(
            denoiser.unet,
            reference=REFERENCE,
            latents=NOISY,
            timestep=time,
            halves=[half],
            down_residuals=down,
            mid_residual=mid,
            reference_features=features,
            reference_scale=0.7,
        )
    assert got.shape == NOISY.shape
    torch.testing.assert_close(got, wanted[0], atol=1e-5, rtol=1e-5)


def test_the_references_own_pose_reaches_the_frames_that_look_at_it() -> None:
    denoiser, time = tiny_denoiser(), torch.tensor(400)
    fill(denoiser)
    with torch.no_grad():
        inputs = {"reference": REFERENCE, "pose": POSE}
        without = denoiser(NOISY, time, **inputs)
        told = denoiser(NOISY, time, **inputs, reference_pose=OWN_POSE)
        elsewhere = denoiser(NOISY, time, **inputs, reference_pose=OWN_POSE.flip(-1))
        off = denoiser(NOISY, time, **inputs, reference_pose=OWN_POSE, pose_scale=0.0)
        black = denoiser(NOISY, time, **inputs, pose_scale=0.0)
    assert (told - without).abs().max() > 1e-4
    assert (told - elsewhere).abs().max() > 1e-4
    torch.testing.assert_close(off, black)


@pytest.mark.parametrize("reference", REFERENCES)
def test_both_guidance_halves_see_the_reference(reference: str) -> None:
    denoiser, time = text_denoiser(reference), torch.tensor(400)
    text, image = clip(2, 5, 12, seed=8), clip(2, 4, 12, seed=9)
    features = None if denoiser.reference_net is None else denoiser.reference_net(REFERENCE, text)
    with torch.no_grad():
        halves = predict(
            denoiser.unet,
            reference=REFERENCE,
            latents=NOISY,
            timestep=time,
            halves=[Tokens(text + 1, image), Tokens(text, image)],
            reference_features=features,
        )
        alone = predict(
            denoiser.unet,
            reference=REFERENCE,
            latents=NOISY,
            timestep=time,
            halves=[Tokens(text, image)],
            reference_features=features,
        )
    torch.testing.assert_close(halves[1], alone[0], atol=1e-5, rtol=1e-5)
    assert (halves[0] - halves[1]).abs().max() > 1e-4


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_clip_has_its_own_time_strengths_and_text(reference: str) -> None:
    denoiser = text_denoiser(reference)
    inputs: dict[str, Tensor] = {
        "noisy": NOISY,
        "timesteps": TIME,
        "reference": REFERENCE,
        "pose": POSE,
        "text": clip(2, 5, 12, seed=8),
        "image_features": clip(2, 7, 10, seed=9),
        "reference_scale": torch.tensor([1.0, 0.4]),
        "pose_scale": torch.tensor([0.0, 0.5]),
    }
    with torch.no_grad():
        both = denoiser(**inputs)
        for n in range(2):
            alone = denoiser(**{name: value[n : n + 1] for name, value in inputs.items()})
            torch.testing.assert_close(both[n : n + 1], alone, atol=1e-5, rtol=1e-5)
        for name in ("reference", "pose", "text", "image_features"):
            other = denoiser(**inputs | {name: inputs[name].flip(0)})
            # with CLIP's tokens the latent tells the denoiser nothing more
            read = (name, reference) != ("reference", "ip-adapter")
            assert ((other - both)[1].abs().max() > 1e-4) == read, name
        unposed = denoiser(**inputs | {"pose": None})
        torch.testing.assert_close(both[0], unposed[0], atol=1e-5, rtol=1e-5)


def test_new_controlnets_change_nothing() -> None:
    """Their zero convolutions: at step 0 the clip is the one without pose and face."""
    parts = tiny_components()
    fresh = {
        name: ControlNetModel.from_config(parts[name].config)
        for name in ("pose_controlnet", "face_controlnet")
    }
    denoiser = tiny_denoiser(**fresh)
    with torch.no_grad():
        with_both = denoiser(NOISY, TIME, reference=REFERENCE, pose=POSE, face=FACE)
        assert torch.equal(with_both, denoiser(NOISY, TIME, reference=REFERENCE))
        alive = tiny_denoiser()(NOISY, TIME, reference=REFERENCE, pose=POSE, face=FACE)
        assert (alive - with_both).abs().max() > 1e-3


@pytest.mark.parametrize("which", ["pose", "face"])
def test_a_model_without_one_controlnet(which: str) -> None:
    denoiser = tiny_denoiser(**{f"{which}_controlnet": None})
    inputs = {"pose": POSE, "face": FACE}
    kept = {name: value for name, value in inputs.items() if name != which}
    with torch.no_grad():
        whole = denoiser(NOISY, TIME, reference=REFERENCE, **inputs)
        assert torch.equal(whole, denoiser(NOISY, TIME, reference=REFERENCE, **kept))
        assert (whole - denoiser(NOISY, TIME, reference=REFERENCE)).abs().max() > 1e-4


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_parameter_takes_part(reference: str) -> None:
    """So that data-parallel training needs not look for unused ones; strengths are tensors as in training."""
    denoiser = tiny_denoiser(reference)
    scale = torch.tensor([1.0, 0.0])
    out = denoiser(
        NOISY, TIME, reference=REFERENCE, pose=POSE, face=FACE, reference_scale=scale, face_scale=scale
    )
    out.square().mean().backward()
    assert [name for name, value in denoiser.named_parameters() if value.grad is None] == []
    assert all(value.grad.isfinite().all() for value in denoiser.parameters() if value.grad is not None)


@pytest.mark.parametrize("reference", REFERENCES)
def test_what_a_stage_trains_by_name(reference: str) -> None:
    denoiser = tiny_denoiser(reference)
    names = set(denoiser.reference_parameters())
    assert names <= {name for name, _ in denoiser.named_parameters()}
    endings = {
        "dynamics-adapter": {"to_q_ff.weight", "to_out_ff.weight", "to_out_ff.bias"},
        "reference-net": set(),
        "ip-adapter": {"to_k_ip.weight", "to_v_ip.weight"},
    }[reference]
    inside = {name for name in names if name.startswith("unet.")}
    assert {".".join(name.split(".")[-2:]) for name in inside} == endings
    extra = {"reference-net": "reference_net", "ip-adapter": "reference_encoder"}.get(reference)
    beside = {name for name in names if not name.startswith("unet.")}
    assert beside == {name for name, _ in denoiser.named_parameters() if name.startswith(f"{extra}.")}
    assert all("motion_modules" in name for name in denoiser.motion_parameters())
    assert not names & set(denoiser.motion_parameters())
    projected = text_denoiser(reference).reference_parameters()
    assert any("image_projector" in name for name in projected) is (reference == "ip-adapter")


@pytest.mark.parametrize("reference", REFERENCES)
def test_checkpointing_changes_nothing_but_memory(reference: str) -> None:
    denoiser = tiny_denoiser(reference).train()

    def gradients() -> dict[str, Tensor]:
        denoiser.zero_grad()
        out = denoiser(NOISY, TIME, reference=REFERENCE, pose=POSE, reference_scale=torch.tensor([1.0, 0.3]))
        out.square().mean().backward()
        return {name: p.grad.clone() for name, p in denoiser.named_parameters() if p.grad is not None}

    plain = gradients()
    denoiser.enable_gradient_checkpointing()
    torch.testing.assert_close(gradients(), plain, atol=1e-5, rtol=1e-4)


def test_pictures_without_motion() -> None:
    denoiser = tiny_denoiser("reference-net")
    with torch.no_grad():
        still = denoiser(NOISY, TIME, reference=REFERENCE, temporal=False)
        assert (still - denoiser(NOISY, TIME, reference=REFERENCE)).abs().max() > 1e-4


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    denoiser = tiny_denoiser("reference-net")
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    inputs = {"reference": REFERENCE, "pose": POSE, "reference_scale": torch.tensor([1.0, 0.5])}
    with torch.no_grad():
        torch.testing.assert_close(compiled(NOISY, TIME, **inputs), denoiser(NOISY, TIME, **inputs))
    torch._dynamo.reset()


def test_parts_that_do_not_belong_together() -> None:
    net = tiny_components(reference="reference-net")["reference_net"]
    encoder = tiny_components(reference="ip-adapter")["reference_encoder"]
    with pytest.raises(WeightsError, match="reference_net: is missing"):
        tiny_denoiser("reference-net", reference_net=None)
    with pytest.raises(WeightsError, match="reference 'dynamics-adapter', which reads none"):
        tiny_denoiser(reference_net=net)
    with pytest.raises(WeightsError, match="gives 4 image tokens, the denoiser reads 0"):
        tiny_denoiser(reference_encoder=encoder)
    projector = Resampler(dim=8, depth=1, dim_head=4, heads=2, num_queries=4, output_dim=12)
    with pytest.raises(WeightsError, match="one source"):
        tiny_denoiser("ip-adapter", image_projector=projector)
    wider = ReferenceEncoder(dim=8, depth=1, heads=2, num_queries=5, output_dim=12)
    with pytest.raises(WeightsError, match="gives 5 image tokens, the denoiser reads 4"):
        tiny_denoiser("ip-adapter", reference_encoder=wider)
