"""`xdyna evaluate`: pair the clips, measure what is not measured yet, gather, write the report.

What was measured of a pair is kept under OUT/cache by a hash of the files' content, the suite and its version, so the
same command goes on where it stopped, and a changed clip is measured anew.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from xdyna import media
from xdyna.errors import OptionError, OutputError, XdynaError
from xdyna.evaluation.distances import set_suite
from xdyna.evaluation.metrics import SUITES
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.packaged import PACKAGED, find_file
from xdyna.evaluation.pairs import Pair, pair_up
from xdyna.evaluation.readings import ClipReadings, Reading
from xdyna.evaluation.registry import NETWORKS
from xdyna.evaluation.report import Report, write_report
from xdyna.evaluation.suites import CLIP_SUITES
from xdyna.media.files import write_failure

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the suites: what an older version measured is measured anew."""
Progress = Callable[[str, int, int | None], None]


def evaluate(
    pred: str | Path,
    output: str | Path,
    *,
    truth: str | Path | None = None,
    driving: str | Path | None = None,
    masks: str | Path | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a system's outputs.

    Args:
        pred: folder of generated clips, see `clips` for the layouts.
        output: folder for report.json, report.md, report.html, report.tex and what is worth keeping for a next run.
        truth: the true clips, by the same names; None in cross-driving.
        driving: the driving clips, by the same names.
        masks: masks of the true person, by the same names: white where the person is.
        options: see `EvaluateOptions`.
        progress: called with a part's name, how much of it is done, and of how much.

    Raises:
        InputError: folders that hold no clips or do not agree.
        OptionError: suites that do not exist, or nothing to compare with.
        OutputError: the folder cannot be written.
    """
    options = options or EvaluateOptions()
    suites = chosen_suites(options.suite)
    if truth is None and driving is None:
        raise OptionError("--truth, --driving", "nothing to compare with", "Give one of them, or both")
    told = progress or (lambda part, done, total: None)
    pairs = pair_up(
        pred, truth=truth, driving=driving, masks=masks, frames=options.frames, partial=options.partial
    )
    folder = Path(output)
    cache = folder / "cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from None
    except ValueError as error:  # a null byte in the name
        raise OutputError(str(output), f"is no path ({error})", "Give another name") from None
    digests = {pair.name: pair.digest() for pair in pairs}
    gathered: dict[str, dict[str, ClipReadings]] = {}
    with _Crew(options.workers) as crew:
        for suite in suites:
            if suite in CLIP_SUITES:
                gathered[suite] = _measure_all(suite, pairs, digests, cache, crew=crew, told=told)
    found = set_suite(pairs, cache, options=options, progress=told) if "set" in suites else None
    report = Report.gather(
        pairs, gathered, found,
        folders={"pred": pred, "truth": truth, "driving": driving, "masks": masks}, options=options,
        digests=digests,
    )  # fmt: skip
    write_report(report, folder, pairs)
    return report


def chosen_suites(text: str) -> list[str]:
    """The suites of "pixel,motion" or "all", in their own order.

    Raises:
        OptionError: a suite that does not exist.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in asked if word not in (*SUITES, "all")]
    if unknown or not asked:
        raise OptionError(
            "--suite",
            f"got {text!r}, allowed are {', '.join(SUITES)} and all",
            "Several are parted by commas",
        )
    return [suite for suite in SUITES if "all" in asked or suite in asked]


def _measure_all(
    suite: str,
    pairs: Sequence[Pair],
    digests: dict[str, str],
    cache: Path,
    *,
    crew: _Crew,
    told: Progress,
) -> dict[str, ClipReadings]:
    """One suite on all clips."""
    done: dict[str, ClipReadings] = {}
    left: list[tuple[Pair, Path]] = []
    here = files_here()
    for pair in pairs:
        place = cache / f"{_key(suite, digests[pair.name], here)}.json"
        held = _held(place)
        if held is None:
            left.append((pair, place))
        else:
            done[pair.name] = held
    told(suite, len(done), len(pairs))
    for pair, place, readings in crew.measured(suite, left):
        media.write_json(place, _to_json(readings))
        done[pair.name] = readings
        told(suite, len(done), len(pairs))
    return {pair.name: done[pair.name] for pair in pairs}


class _Crew:
    """Processes that measure clips: started when there is work for several, and kept for all suites.

    Args:
        workers: how many; 0 for one a core, 1 measures in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def measured(
        self, suite: str, left: Sequence[tuple[Pair, Path]]
    ) -> Iterator[tuple[Pair, Path, ClipReadings]]:
        """The clips as they get done."""
        if min(self.workers, len(left)) < 2:
            for pair, place in left:
                yield pair, place, CLIP_SUITES[suite](pair)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                min(self.workers, len(left)),
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_single_threaded,
            )
        waiting = {self._pool.submit(_measure_one, suite, pair): (pair, place) for pair, place in left}
        for future in as_completed(waiting):
            pair, place = waiting[future]
            yield pair, place, future.result()


def _measure_one(suite: str, pair: Pair) -> ClipReadings:
    return CLIP_SUITES[suite](pair)


def _single_threaded() -> None:
    """One thread a process: there is a process for every core."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def files_here() -> str:
    """Which network files there are: with others, other metrics can be measured."""
    found = []
    for name in sorted({*NETWORKS, *PACKAGED}):
        try:
            find_file(name)
        except XdynaError:
            continue
        found.append(name)
    return " ".join(found)


def _key(suite: str, digest: str, here: str) -> str:
    return f"{suite}-{hashlib.sha256(f'{VERSION} {suite} {digest} {here}'.encode()).hexdigest()[:24]}"


def _held(place: Path) -> ClipReadings | None:
    """What an earlier run measured; None where there is nothing usable."""
    if not place.is_file():
        return None
    try:
        value = media.read_json(place)
        readings = {name: Reading.from_json(item) for name, item in value["readings"].items()}
        told = [
            {str(name): str(text) for name, text in value[key].items()} for key in ("unavailable", "protocol")
        ]
        return ClipReadings(readings, *told)
    except (XdynaError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _to_json(readings: ClipReadings) -> dict[str, Any]:
    return {
        "readings": {name: reading.to_json() for name, reading in readings.readings.items()},
        "unavailable": readings.unavailable,
        "protocol": readings.protocol,
    }
