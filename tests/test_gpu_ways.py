"""What only a GPU shows: recordings, lent networks, decoding ahead, cuDNN's attention, all within rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from xdyna.models.attention import LONG, attend, quickest_attention
from xdyna.pipeline import XDynaPipeline
from xdyna.sampling import (
    Controls,
    Networks,
    Recorded,
    Recorder,
    Tokens,
    WindowPlan,
    decode_latents,
    decode_stream,
    denoise,
    make_scheduler,
    record_networks,
    set_timesteps,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_model(tmp_path_factory.mktemp("gpu") / "model")


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("points") / "dancer.npz"
    tiny.dancer(21).save(path)
    return str(path)


def frames(model: Path, keypoints: str, **ways: Any) -> np.ndarray:
    pipeline = XDynaPipeline.from_pretrained(model, device="cuda", **ways)
    made = pipeline(
        tiny.noise_frames(1)[0], tiny.noise_frames(21), align="none", detector="given", keypoints=keypoints
    )
    return made.frames.astype(int)


@pytest.mark.parametrize(
    "ways",
    [
        {"graphs": True},
        {"graphs": True, "fusing": "half"},
        {"fusing": "half"},
        {"offload": True},
        {"weights_as": "int8"},
        {"weights_as": "fp8"},
        {"weights_as": "int8", "graphs": True, "fusing": "half"},
        {"dtype": "bf16"},
    ],
    ids=str,
)
def test_ways_give_nearly_the_same_pixels(model: Path, keypoints: str, ways: dict[str, Any]) -> None:
    plain = frames(model, keypoints, dtype="float32", fusing="never")
    found = frames(model, keypoints, **({"fusing": "never"} | ways))
    off = np.abs(found - plain)
    print(ways, "mean", off.mean(), "most", off.max())
    rounded = "weights_as" in ways or ways.get("dtype") == "bf16"
    assert off.mean() < (6 if rounded else 1)


@pytest.mark.parametrize("ways", [{"graphs": True, "fusing": "half"}, {"offload": True}], ids=str)
def test_a_close_up_is_made_in_every_way(
    model: Path, keypoints: str, tmp_path: Path, ways: dict[str, Any]
) -> None:
    tiny.dancer(1, (120, 90)).save(tmp_path / "own.npz")

    def made(refine: bool, **ways: Any) -> np.ndarray:
        pipeline = XDynaPipeline.from_pretrained(model, device="cuda", **ways)
        output = pipeline(
            tiny.noise_frames(1, (120, 90))[0], tiny.noise_frames(21), keypoints=keypoints, size="96x128",
            reference_keypoints=str(tmp_path / "own.npz"), refine_face=refine,
        )  # fmt: skip
        return output.frames.astype(int)

    plain, found = made(True, dtype="float32", fusing="never"), made(True, **({"fusing": "never"} | ways))
    assert np.abs(found - plain).mean() < 1
    assert np.abs(plain - made(False, dtype="float32", fusing="never")).max() > 10


def test_recordings_replay_what_the_network_does() -> None:
    parts = tiny.tiny_components()
    unet, control = (parts[name].cuda().half() for name in ("unet", "pose_controlnet"))
    recorder = Recorder()
    taped, taped_control = Recorded(unet, recorder), Recorded(control, recorder)
    with torch.inference_mode():
        for turn in range(3):
            for count in (4, 3):
                torch.manual_seed(turn)
                x, time = torch.randn(1, 4, count, 8, 8).cuda().half(), torch.tensor(300 + turn).cuda()
                pictures = torch.rand(count, 3, 64, 64).cuda().half()
                rows = x[0].transpose(0, 1).contiguous()
                down, mid = taped_control(rows, time, None, pictures, return_dict=False)
                wanted, wanted_mid = control(rows, time, None, pictures, return_dict=False)
                for one, other in zip((*down, mid), (*wanted, wanted_mid), strict=True):
                    torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)
                torch.testing.assert_close(taped(x, time), unet(x, time), atol=2e-3, rtol=2e-3)
    assert len(taped._recordings) == len(taped_control._recordings) == 2


def test_recorded_networks_of_a_step_predict_what_they_do() -> None:
    """Residuals that stand, both halves in one recording, windows that share frames: as without recordings."""
    parts = tiny.tiny_components()
    for name in ("unet", "pose_controlnet", "face_controlnet"):
        parts[name].cuda()
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 7, 8, 8, generator=generator).cuda()
    pictures = torch.rand(1, 7, 9, 64, 64, generator=generator).cuda()
    networks = Networks(parts["unet"], parts["pose_controlnet"], parts["face_controlnet"])
    scheduler = make_scheduler("ddim", parts["scheduler"])
    set_timesteps(scheduler, 3, torch.device("cuda"))

    def run(networks: Networks) -> torch.Tensor:
        with torch.inference_mode():
            return denoise(
                networks, scheduler, reference=latents[:, :, 0], latents=latents, tokens=Tokens(),
                negative=Tokens(), guidance=3.0, plan=WindowPlan(4, 1, "closed"), offsets=[0, 1, 2],
                controls=Controls(lambda picks: pictures[:, picks, :3], lambda picks: pictures[:, picks, 3:]),
            )  # fmt: skip

    made = record_networks(networks.unet, networks.pose_controlnet, networks.face_controlnet)
    torch.testing.assert_close(run(made), run(networks), atol=2e-3, rtol=2e-3)
    assert made.unet._recordings
    assert made.pose_controlnet._recordings


def test_offloading_leaves_no_network_on_the_gpu(model: Path, keypoints: str) -> None:
    pipeline = XDynaPipeline.from_pretrained(model, device="cuda", offload=True)
    pipeline(tiny.noise_frames(1)[0], tiny.noise_frames(5), align="none", detector="given",
             keypoints=keypoints, frames=4)  # fmt: skip
    for name in ("unet", "vae", "pose_controlnet", "face_controlnet"):
        weight = next(getattr(pipeline, name).parameters())
        assert weight.device.type == "cpu", name
        assert weight.is_pinned(), name


def test_decoding_ahead_is_decoding() -> None:
    vae = tiny.tiny_components()["vae"].cuda()
    latents = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(0)).cuda()
    found = np.concatenate(list(decode_stream(vae, latents.split(2))))
    wanted = np.concatenate([decode_latents(vae, part) for part in latents.split(2)])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("channels", [320, 640, 1280])
def test_the_quickest_attention_is_attention(channels: int) -> None:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 2 * LONG, channels, device="cuda", dtype=torch.half) for _ in range(3)
    )
    with torch.inference_mode():
        found = attend(query, key, value, heads=8)
        with quickest_attention(query):
            again = attend(query[:, :77], key, value, heads=8)
    with torch.no_grad():
        wanted = attend(query.float(), key.float(), value.float(), heads=8)
    torch.testing.assert_close(found.float(), wanted, atol=2e-3, rtol=2e-2)
    torch.testing.assert_close(again.float(), wanted[:, :77], atol=2e-3, rtol=2e-2)
