"""Writes src/xdyna/assets/motion/captured.safetensors: filmed people's motion as channels of the synthetic world.

    apt-get download assimp-testmodels && dpkg-deb -x assimp-testmodels_*.deb debian
    python tools/export_motion.py debian/usr/share/assimp/models/BVH

The three BVH files of Debian's package become angles of trunk, arms and head and heights of hips and feet,
`captured.RATE` times a second. What turns slowly (walking in a circle) is taken out, so that everybody goes on
facing the viewer; the faster part of turning stays.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from xdyna.data.synthetic.captured import CHANNELS, MOTION_FILE, RATE

TAKES = ("01_01.bvh", "01_03.bvh", "Boxing_Toes.bvh")
NAMES = {
    "hip": ("{side}UpLeg", "{side}Hip"), "foot": ("{side}Foot", "{side}Ankle"), "knee": ("{side}Leg", "{side}Knee"),
    "shoulder": ("{side}Arm", "{side}Shoulder"), "elbow": ("{side}ForeArm", "{side}Elbow"),
    "wrist": ("{side}Hand", "{side}Wrist"),
}  # fmt: skip


class Take:
    """A BVH file: joints in the order of the file, each with its parent, offset and channels."""

    def __init__(self, path: Path) -> None:
        lines = iter(path.read_text().split("\n"))
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[list[float]] = []
        self.channels: list[list[str]] = []
        stack: list[int] = []
        for line in lines:
            words = line.split()
            if not words:
                continue
            if words[0] in ("ROOT", "JOINT", "End"):
                self.names.append(words[1])
                self.parents.append(stack[-1] if stack else -1)
                self.channels.append([])
            elif words[0] == "{":
                stack.append(len(self.names) - 1)
            elif words[0] == "}":
                stack.pop()
            elif words[0] == "OFFSET":
                self.offsets.append([float(word) for word in words[1:]])
            elif words[0] == "CHANNELS":
                self.channels[-1] = words[2:]
            elif words[0] == "MOTION":
                break
        next(lines)
        self.step = float(next(lines).split()[-1])
        self.values = np.array([[float(word) for word in line.split()] for line in lines if line.split()])

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (f j 3) and turns (f j 3 3) of all joints in our axes: x to the left hand, y down, z ahead."""
        count = len(self.values)
        places = np.zeros((count, len(self.names), 3))
        turns = np.tile(np.eye(3), (count, len(self.names), 1, 1))
        column = 0
        for joint, channels in enumerate(self.channels):
            offset, turn = np.tile(self.offsets[joint], (count, 1)), np.tile(np.eye(3), (count, 1, 1))
            for channel in channels:
                value = self.values[:, column]
                column += 1
                axis = "XYZ".index(channel[0])
                if channel.endswith("position"):
                    offset[:, axis] += value
                else:
                    turn = turn @ _about(axis, np.radians(value))
            parent = self.parents[joint]
            if parent < 0:
                places[:, joint], turns[:, joint] = offset, turn
            else:
                places[:, joint] = places[:, parent] + np.einsum("fij,fj->fi", turns[:, parent], offset)
                turns[:, joint] = turns[:, parent] @ turn
        flip = np.diag([1.0, -1.0, 1.0])
        return places @ flip, flip @ turns @ flip

    def joint(self, name: str, side: str) -> int:
        """A joint by our name for it."""
        return next(
            self.names.index(n.format(side=side)) for n in NAMES[name] if n.format(side=side) in self.names
        )


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    matrix = np.tile(np.eye(3), (len(angle), 1, 1))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle)
    matrix[:, first, second], matrix[:, second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def smooth(values: np.ndarray, seconds: float, step: float) -> np.ndarray:
    """Values (f ...) with a Gaussian over time, ends repeated."""
    reach = max(1, int(3 * seconds / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / seconds) ** 2)
    kernel /= kernel.sum()
    flat = values.reshape(len(values), -1)
    padded = np.concatenate([np.repeat(flat[:1], reach, 0), flat, np.repeat(flat[-1:], reach, 0)])
    return np.stack([np.convolve(row, kernel, "valid") for row in padded.T], 1).reshape(values.shape)


def channels(take: Take) -> np.ndarray:
    """The channels `captured.CHANNELS` (n c), `RATE` a second."""
    places, turns = take.pose()
    step = take.step

    def at(name: str, side: str) -> np.ndarray:
        return places[:, take.joint(name, side)]

    across = at("shoulder", "Left") - at("shoulder", "Right") + 0.5 * (at("hip", "Left") - at("hip", "Right"))
    heading = np.unwrap(np.arctan2(-across[:, 2], across[:, 0]))
    slow = smooth(heading, 1.0, step)
    turn = (heading - slow).clip(-0.85, 0.85)

    def seen(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Vectors (f 3) turned back by an angle (f,) about the upright axis."""
        cos, sin = np.cos(angle), np.sin(angle)
        x, y, z = vectors.T
        return np.stack([x * cos - z * sin, y, x * sin + z * cos], 1)

    hips = (at("hip", "Left") + at("hip", "Right")) / 2
    shoulders = (at("shoulder", "Left") + at("shoulder", "Right")) / 2
    trunk = seen(hips - shoulders, slow)
    leg = np.median(np.linalg.norm(at("hip", "Left") - at("knee", "Left"), axis=1)
                    + np.linalg.norm(at("knee", "Left") - at("foot", "Left"), axis=1))  # fmt: skip
    line = at("shoulder", "Left") - at("shoulder", "Right")
    found = {
        "turn": turn, "lean": np.arctan2(trunk[:, 0], trunk[:, 1]).clip(-0.35, 0.35),
        "tilt": np.arcsin((line[:, 1] / np.linalg.norm(line, axis=1)).clip(-0.35, 0.35)),
        "x": (0.25 * seen(hips - smooth(hips, 1.5, step), slow)[:, 0] / leg).clip(-0.06, 0.06),
    }  # fmt: skip
    feet = {side: -at("foot", side)[:, 1] for side in ("Left", "Right")}
    ground = np.minimum(feet["Left"], feet["Right"])
    height = -hips[:, 1] - ground
    found["bob"] = ((np.percentile(height, 92) - height) / leg / 0.05).clip(0, 7)
    for side, sign in (("Right", -1.0), ("Left", 1.0)):
        name = side.lower()
        found[f"{name}_step"] = ((feet[side] - ground) / leg / 0.16 - 0.15).clip(0, 1.6)
        upper, fore = (seen(b - a, heading) for a, b in (
            (at("shoulder", side), at("elbow", side)), (at("elbow", side), at("wrist", side))))  # fmt: skip
        upper, fore = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (upper, fore))
        raised = np.unwrap(np.arctan2(sign * upper[:, 0], upper[:, 1]))
        bent = np.unwrap(np.arctan2(sign * fore[:, 0], fore[:, 1]))
        raised = raised - 2 * np.pi * np.round(np.median(raised - 1.2) / (2 * np.pi))
        found[f"{name}_raise"] = raised.clip(-0.1, 2.9)
        apart = (bent - found[f"{name}_raise"] + np.pi) % (2 * np.pi) - np.pi
        found[f"{name}_elbow"] = apart.clip(-2.3, 2.3)
        found[f"{name}_forward"] = np.arcsin(fore[:, 2].clip(-1, 1)).clip(0, 1.25)
        found[f"{name}_swing"] = np.arcsin(upper[:, 2].clip(-1, 1)).clip(-0.5, 1.1)
    head = turns[:, take.names.index("Head")]
    ahead, left = seen(head[:, :, 2], slow), seen(head[:, :, 0], slow)
    found["yaw"] = np.arctan2(ahead[:, 0], ahead[:, 2]).clip(-0.75, 0.75)
    found["pitch"] = np.arcsin(ahead[:, 1].clip(-1, 1)).clip(-0.4, 0.4)
    found["roll"] = np.arcsin(left[:, 1].clip(-1, 1)).clip(-0.45, 0.45)
    values = smooth(np.stack([found[name] for name in CHANNELS], 1), 0.06, step)
    moments = np.arange(0, (len(values) - 1) * step, 1 / RATE) / step
    low = moments.astype(int)
    share = (moments - low)[:, None]
    return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with " + ", ".join(TAKES))
    parser.add_argument("-o", "--output", type=Path, default=MOTION_FILE)
    options = parser.parse_args()
    takes = [channels(Take(options.folder / name)) for name in TAKES]
    tensors = {
        "values": torch.tensor(np.concatenate(takes)).half(),
        "lengths": torch.tensor([len(take) for take in takes], dtype=torch.int32),
    }
    notes = {
        "channels": ",".join(CHANNELS), "rate": str(RATE),
        "source": "Debian assimp-testmodels 5.2.5 (BSD-3-clause): " + ", ".join(TAKES),
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    part = options.output.with_suffix(".part")
    save_file(tensors, part, metadata=notes)
    os.replace(part, options.output)


if __name__ == "__main__":
    main()
