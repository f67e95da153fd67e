"""Networks of the user's as face sources: a function by name, or a command.

Both are started only because the user wrote their name into an option of this run. Nothing here reads names from
a model's folder, a manifest or any other data.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from xdyna.conditions.people import Detector
from xdyna.conditions.track import track
from xdyna.data.face_source import FaceSource
from xdyna.data.reenact.gallery import Gallery, synthetic_gallery
from xdyna.data.reenact.source import Reenactor, SameFace
from xdyna.errors import InputError, OptionError, XdynaError
from xdyna.media import Clip, read_clip, write_clip, write_image

log = logging.getLogger(__name__)

PLACEHOLDERS = ("source", "driving", "output")


class PluginFace:
    """A function of the user's, its answers checked.

    Args:
        name: "package.module:function" or "path/to/file.py:function"; the function is a `FaceSource`.

    Raises:
        OptionError: it cannot be imported, or is no function; see `__call__` for later trouble.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._function = _imported(name)

    def __call__(
        self, frames: np.ndarray, landmarks: np.ndarray, *, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `FaceSource`.

        Raises:
            OptionError: the function raised, or gave something else than pictures and landmarks.
        """
        try:
            answer = self._function(frames.copy(), landmarks.copy(), generator=generator)
        except XdynaError:
            raise
        except Exception as error:
            raise OptionError(
                f"face source {self.name}", f"raised {type(error).__name__}: {error}", "Mend the function"
            ) from error
        return checked(answer, frames, name=self.name)


def checked(answer: object, frames: np.ndarray, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a source gave, if it is pictures and landmarks as asked for.

    Raises:
        OptionError: it is not; the message says what it is.
    """

    def wrong(problem: str) -> OptionError:
        return OptionError(
            f"face source {name}", problem, "It must return pictures (f h w 3) uint8 and landmarks (f 68 3)"
        )

    if not isinstance(answer, tuple) or len(answer) != 2:
        raise wrong(f"returned {type(answer).__name__} and not a pair")
    pictures, landmarks = (np.asarray(part) for part in answer)
    if pictures.shape != frames.shape or pictures.dtype != np.uint8:
        raise wrong(f"returned pictures {pictures.shape} {pictures.dtype} for frames {frames.shape} uint8")
    if landmarks.shape != (len(frames), 68, 3):
        raise wrong(f"returned landmarks {landmarks.shape} for {len(frames)} frames")
    landmarks = landmarks.astype(np.float32)
    if not np.isfinite(landmarks[landmarks[..., 2] > 0]).all():
        raise wrong("returned landmarks that are not finite but scored above 0")
    return pictures, landmarks


def _imported(name: str) -> Callable[..., object]:
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise OptionError(
            "face source", f"{name!r} is not MODULE:FUNCTION", "Write my_package.my_module:my_function"
        )
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except XdynaError:
        raise
    except Exception as error:  # whatever the user's module raises while it loads
        hint = (
            "Give the path of its file, or set PYTHONPATH"
            if isinstance(error, ImportError)
            else "Mend the module"
        )
        raise OptionError(
            f"face source {name}", f"{place} cannot be imported ({type(error).__name__}: {error})", hint
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        problem = (
            f"{place} has no function {attribute!r}" if found is None else f"{attribute!r} is no function"
        )
        raise OptionError(f"face source {name}", problem, "Check the name after the colon")
    return found


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise OptionError("face source", f"{path} does not exist", "Check the path before the colon")
    # A name of its own, so that a file called like a package hides nothing.
    name = f"_xdyna_face_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OptionError("face source", f"{path} cannot be loaded", "Give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class CommandFace:
    """A program that animates a portrait with a driving video, such as LivePortrait's or X-Portrait's script.

    The source's portrait and the target's face (cut out, one box for the clip) are written to a temporary folder,
    the command runs, and its video is read. Landmarks are detected in that video, and each frame is brought to
    where the target's face is and to its size.

    Args:
        command: split like a shell's line but run without a shell. {source} (PNG), {driving} (mp4, 25 frames a
            second) and {output} (mp4) stand for the files.
        gallery: whose portraits.
        detector: finds the landmarks; None takes MediaPipe.
        timeout: seconds a run may take.

    Raises:
        OptionError: a placeholder is missing, the quotes do not close, or the gallery is empty.
    """

    def __init__(
        self, command: str, gallery: Gallery, *, detector: Detector | None = None, timeout: float = 600.0
    ) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise OptionError("face command", f"{command!r} cannot be read ({error})", _TEMPLATE) from None
        missing = [name for name in PLACEHOLDERS if f"{{{name}}}" not in command]
        if missing:
            raise OptionError("face command", f"{command!r} lacks {{{missing[0]}}}", _TEMPLATE)
        if not len(gallery):
            raise OptionError("face gallery", "is empty", "Give pictures of other people's faces")
        self.gallery, self._detector, self.timeout = gallery, detector, timeout

    def __call__(
        self, frames: np.ndarray, landmarks: np.ndarray, *, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `FaceSource`.

        Raises:
            OptionError: the program is missing, failed, took too long, or made no video of as many frames.
            InputError: no face is found in its video.
        """
        seen = (landmarks[..., 2] > 0).all(1)
        if not seen.any():
            return np.zeros_like(frames), np.zeros((len(frames), 68, 3), np.float32)
        face = self.gallery.draw(generator)
        with tempfile.TemporaryDirectory(prefix="xdyna-face-") as folder:
            files = {
                "source": Path(folder, "source.png"),
                "driving": Path(folder, "driving.mp4"),
                "output": Path(folder, "output.mp4"),
            }
            write_image(files["source"], face.picture, ai_generated=False)
            write_clip(Clip(frames=_portrait(frames, landmarks[seen]), fps=Fraction(25)), files["driving"])
            self._run(files)
            made = read_clip(files["output"]).frames
        if len(made) != len(frames):
            raise OptionError(
                "face command", f"made {len(made)} frames of {len(frames)}", "Check its settings"
            )
        found = track(self._find().stream(made), source="face command's video").face
        return _brought(made, found, frames, landmarks)

    def _find(self) -> Detector:
        if self._detector is None:
            from xdyna.conditions.detect import make_detector

            self._detector = make_detector("mediapipe", max_people=1)
        return self._detector

    def _run(self, files: dict[str, Path]) -> None:
        words = self._words
        for name, path in files.items():
            words = [word.replace(f"{{{name}}}", str(path)) for word in words]
        log.info("Running %s", shlex.join(words))
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.timeout, check=False)
        except FileNotFoundError:
            raise OptionError("face command", f"there is no program {words[0]!r}", "Give its path") from None
        except PermissionError:
            raise OptionError(
                "face command", f"{words[0]!r} may not be run", "Check its permissions"
            ) from None
        except subprocess.TimeoutExpired:
            raise OptionError(
                "face command", f"took longer than {self.timeout:g} seconds", "Allow more"
            ) from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            last = f"; its last line: {said[-1][:300]}" if said else ""
            raise OptionError("face command", f"ended with status {done.returncode}{last}", "Run it by hand")
        if not files["output"].exists():
            raise OptionError("face command", "wrote no file at {output}", _TEMPLATE)


_TEMPLATE = "Write for example: python animate.py --source {source} --driving {driving} --output {output}"
_PORTRAIT = 512


def _portrait(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(f s s 3): the part of the frames in which the face is, one box for the clip."""
    low, high = landmarks[..., :2].min((0, 1)), landmarks[..., :2].max((0, 1))
    typical = float(np.median(np.ptp(landmarks[..., :2], axis=1).max(-1)))
    side, centre = max(float((high - low).max()) + typical, 2.4 * typical), (low + high) / 2
    scale = _PORTRAIT / max(side, 1.0)
    shift = _PORTRAIT / 2 - centre * scale + scale / 2 - 0.5
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    size = (_PORTRAIT, _PORTRAIT)
    return np.stack([cv2.warpAffine(f, matrix, size, borderMode=cv2.BORDER_REPLICATE) for f in frames])


def _brought(
    made: np.ndarray, found: np.ndarray, frames: np.ndarray, landmarks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network's pictures where the target's face is: pictures and landmarks as a `FaceSource` gives them."""
    pictures, placed = np.zeros_like(frames), np.zeros((len(frames), 68, 3), np.float32)
    both: np.ndarray = np.minimum(found[..., 2], landmarks[..., 2]).min(1) > 0
    if not both.any():
        raise InputError(
            "face command", "no face was found in the video it made", "Look at the video it makes"
        )
    last = None
    for index in range(len(frames)):
        if both[index]:
            last = _fitted(found[index, :, :2], landmarks[index, :, :2])
            placed[index, :, :2] = found[index, :, :2] @ last[:, :2].T + last[:, 2]
            placed[index, :, 2] = found[index, :, 2]
        if last is not None:
            matrix = last.copy()
            matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
            pictures[index] = cv2.warpAffine(
                made[index], matrix, frames.shape[2:0:-1], borderMode=cv2.BORDER_REPLICATE
            )
    return pictures, placed


def _fitted(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(2 3): scale and shift (heads turn by themselves) that bring points (n 2) nearest to others."""
    a, b = start - start.mean(0), end - end.mean(0)
    scale = float((b**2).sum() / max(float((a**2).sum()), 1e-9)) ** 0.5
    shift = end.mean(0) - scale * start.mean(0)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def load_source(name: str, *, gallery: Gallery | None = None) -> FaceSource:
    """The face source of an option.

    Args:
        name: "reenact" (built in), "same" (the target's own face, which leaks), "MODULE:FUNCTION" or
            "path/file.py:FUNCTION", or a command with {source}, {driving} and {output}.
        gallery: the people of "reenact" and of a command; None draws synthetic ones.

    Raises:
        OptionError: the name means nothing, or the module or command cannot be used.
    """
    if name == "same":
        return SameFace()
    if name == "reenact":
        return Reenactor(gallery if gallery is not None else synthetic_gallery())
    if any(f"{{{placeholder}}}" in name for placeholder in PLACEHOLDERS):
        return CommandFace(name, gallery if gallery is not None else synthetic_gallery())
    if ":" in name:
        return PluginFace(name)
    raise OptionError(
        "face source", f"{name!r} is not one of reenact, same", "Or name MODULE:FUNCTION, or a command"
    )
