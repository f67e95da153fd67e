"""Every metric that a report can hold: what it is called, which way is better, how it is printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as in report.json, without the part: "psnr", "dtfvd16", "face_cos[sface]".
        suite: the suite that measures it.
        title: for tables.
        better: "more", "less", or "one" for a ratio that should be 1.
        unit: "" for a plain number.
        digits: significant digits that tables print.
        about: one sentence: what it is.
        table: the paper's column, "" where the paper has none.
    """

    name: str
    suite: str
    title: str
    better: str
    unit: str
    digits: int
    about: str
    table: str = ""

    def distance(self, value: float) -> float:
        """How far from the best: smaller is better, for ordering."""
        if self.better == "one":
            return abs(value - 1)
        return value if self.better == "less" else -value


_ROWS = (
    Metric("l1_disco", "pixel", "L1 (DisCo)", "less", "", 3,
           "mean absolute error of 0..255 over height times width", "L1"),
    Metric("mae", "pixel", "MAE", "less", "0-255", 4, "mean absolute error"),
    Metric("psnr", "pixel", "PSNR", "more", "dB", 4,
           "mean over frames of 20 log10(255 / RMSE), 100 for equal frames", "PSNR"),
    Metric("psnr_disco_legacy", "pixel", "PSNR (wrapping)", "more", "dB", 4,
           "the faulty one of DisCo's first version, whose differences wrap at 256; only to compare with old tables"),
    Metric("ssim_disco", "pixel", "SSIM (DisCo)", "more", "", 4, "grey, 7x7 uniform window", "SSIM"),
    Metric("ssim_gaussian", "pixel", "SSIM (Gaussian)", "more", "", 4, "RGB, 11x11 Gaussian window"),
    Metric("lpips[vgg,unit]", "pixel", "LPIPS (DisCo)", "less", "", 4, "VGG-16, fed 0..1 as DisCo does", "LPIPS"),
    Metric("lpips[vgg,signed]", "pixel", "LPIPS (VGG)", "less", "", 4, "VGG-16, fed -1..1 as its authors do"),
    Metric("lpips[alex,unit]", "pixel", "LPIPS (AlexNet, unit)", "less", "", 4, "AlexNet, fed 0..1"),
    Metric("lpips[alex,signed]", "pixel", "LPIPS (AlexNet)", "less", "", 4, "AlexNet, fed -1..1 as its authors do"),
    Metric("lpips[st-vgg,signed]", "pixel", "ST-LPIPS (VGG)", "less", "", 4,
           "the shift-tolerant LPIPS, whose file a package carries; not comparable with LPIPS"),
    Metric("fid", "set", "FID", "less", "", 4, "pytorch-fid's Inception features", "FID"),
    Metric("fid[clean-resize]", "set", "FID (clean resize)", "less", "", 4,
           "the same network, frames resized as clean-fid does"),
    Metric("fid[clean]", "set", "FID (clean-fid)", "less", "", 4, "clean-fid, with its compiled network"),
    Metric("fid[nsfw-inception]", "set", "FID (NSFW Inception)", "less", "", 4,
           "features of nsfwjs' Inception, which a package carries; not comparable with FID"),
    Metric("fid_vid", "set", "FID-VID", "less", "", 4, "ResNet3D-50 of Kinetics, windows of 16 frames"),
    Metric("fvd[disco]", "set", "FVD (DisCo)", "less", "", 4, "I3D logits, batch-norm epsilon 1e-3"),
    Metric("fvd[tats]", "set", "FVD (TATS)", "less", "", 4, "I3D logits, batch-norm epsilon 1e-5"),
    Metric("fvd[styleganv]", "set", "FVD (StyleGAN-V)", "less", "", 4, "StyleGAN-V's compiled I3D"),
    Metric("cd_fvd", "set", "cd-FVD", "less", "", 4, "VideoMAE ViT-g, windows of 16 frames", "cd-FVD"),
    Metric("cd_fvd[loader]", "set", "cd-FVD (loader)", "less", "", 4, "the same through the published loader"),
    Metric("dtfvd[16]", "set", "DTFVD", "less", "", 4, "I3D of dynamic textures, 16 frames", "DTFVD"),
    Metric("dtfvd[32]", "set", "DTFVD-32", "less", "", 4, "the same, 32 frames"),
    Metric("dtfvd[synth]", "set", "DTFVD (synthetic)", "less", "", 4,
           "our small network of synthetic dynamic textures; not comparable with DTFVD"),
    Metric("face_cos[adaface-ir101]", "face", "Face-Cos", "more", "", 4,
           "cosine of AdaFace IR-101 embeddings", "Face-Cos"),
    Metric("face_cos[adaface-ir50]", "face", "Face-Cos (IR-50)", "more", "", 4, "cosine of AdaFace IR-50 embeddings"),
    Metric("face_cos[sface]", "face", "Face-Cos (SFace)", "more", "", 4, "cosine of OpenCV's SFace embeddings"),
    Metric("face_det[mtcnn]", "face", "Face-Det", "more", "", 4,
           "share of generated frames with a face (MTCNN)", "Face-Det"),
    Metric("face_det[yunet]", "face", "Face-Det (YuNet)", "more", "", 4,
           "share of generated frames with a face (YuNet)"),
    Metric("face_det[mediapipe]", "face", "Face-Det (MediaPipe)", "more", "", 4,
           "share of generated frames with a face (MediaPipe)"),
    Metric("face_exp_mp51", "face", "Face-Exp", "less", "", 4,
           "mean absolute difference of 51 blendshapes from the driving video's, or the true one's", "Face-Exp"),
    Metric("scene_motion_ratio", "motion", "Scene motion", "one", "x true", 3,
           "change of the background from frame to frame, generated over true, where the true one moves"),
    Metric("false_motion", "motion", "False motion", "less", "0-255", 3,
           "change of the generated background where the true one stands still, beyond its own noise"),
    Metric("flicker_ratio", "motion", "Flicker", "one", "x true", 3,
           "|second difference over time| of the background, generated over true"),
    Metric("person_flicker_ratio", "motion", "Person flicker", "one", "x true", 3, "the same of the person"),
    Metric("colour_drift", "motion", "Colour drift", "less", "0-255", 3,
           "how far the mean colour wanders from the first quarter of a clip to the last, beyond the truth"),
    Metric("joint_error_pct", "motion", "Joint error", "less", "% of width", 3,
           "mean distance of 14 body joints, both clips read by MediaPipe"),
    Metric("pck", "motion", "PCK@5%", "more", "", 3,
           "share of joints within 5 % of the width; one not found is wrong"),
    Metric("hand_error_pct", "motion", "Hand error", "less", "% of width", 3,
           "mean distance of the hands' points seen in both"),
)  # fmt: skip

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
SUITES = ("pixel", "set", "face", "motion")
PARTS = {"all": "", "fg": "FG", "bg": "BG"}
"""Parts of a picture that a metric can be taken on, and how tables call them."""


def split_name(full: str) -> tuple[Metric | None, str]:
    """A report's "fg:psnr" -> the metric and its part; None for a metric that this version does not know."""
    part, _, name = full.rpartition(":")
    return METRICS.get(name), part or "all"


def full_name(name: str, part: str) -> str:
    """The reverse: "all" is not written."""
    return name if part == "all" else f"{part}:{name}"


def title_of(full: str) -> str:
    """For a table's head."""
    metric, part = split_name(full)
    words = [PARTS.get(part, part), metric.title if metric else full.rpartition(":")[2]]
    return " ".join(word for word in words if word)
