"""Fixtures of pictures: x (face crops and numbers) and xiv (the reference's crop), all exact."""

from __future__ import annotations

from collections.abc import Iterator

from tests.parity.fixture import Check, Fixture, UnknownFixture, compare_arrays, compare_values, worst_of
from xdyna.conditions.face import crop_to_ratio, face_crops, increased_box, selected_frames
from xdyna.media import crop_to


def check_face(fixture: Fixture) -> Iterator[Check]:
    """x: the crops of single frames, or the numbers behind them."""
    if "image" in fixture.tensors:
        yield from _check_crops(fixture)
    else:
        yield from _check_numbers(fixture)


def _check_crops(fixture: Fixture) -> Iterator[Check]:
    for name, case in fixture.meta["cases"].items():
        left, right, mouth = ((x, y) for x, y in case["last_center"])
        crops = face_crops(
            fixture.array("image"),
            fixture.array(f"{name}.landmarks") if case["detected"] else None,
            last_box=tuple(case["last_bbox"]),
            last_centres=(left, right, mouth),
        )
        checks = [
            compare_values("box", crops.box, case["bbox"]),
            compare_values("centres", crops.centres, case["centers_xy_left_right_mouth"]),
            compare_arrays("local", crops.local, fixture.array(f"{name}.local")),
            compare_arrays("global", crops.global_, fixture.array(f"{name}.global")),
        ]
        yield worst_of(name, checks)


def _check_numbers(fixture: Fixture) -> Iterator[Check]:
    for section, content in fixture.meta.items():
        if section == "increased_bbox":
            got = [increased_box(case["bbox"]) for case in content["cases"]]
            yield compare_values(f"{len(got)} boxes", got, [case["out"] for case in content["cases"]])
        elif section == "crop2ratio":
            boxes = [crop_to_ratio(tuple(case["image_hw"]), tuple(case["resolution_hw"])) for case in content]
            wanted = []
            for case in content:
                _, _, left, top, width, height = case["w_h_startw_starth_targetw_targeth"]
                wanted.append((left, top, left + width, top + height))
            yield compare_values(f"{len(boxes)} cuts to the aspect", boxes, wanted)
        elif section == "frame_selection":
            frames = [
                selected_frames(case["video_frames"], length=case["length"], stride=case["stride"])
                for case in content
            ]
            yield compare_values(f"{len(frames)} frame selections", frames, [c["indices"] for c in content])
        elif section not in ("what", "tensors"):
            raise UnknownFixture(f"numbers called {section}")


def check_reference_crop(fixture: Fixture) -> Iterator[Check]:
    """xiv: in_<n> (h w 3) -> out_<n> at another size."""
    for case in fixture.meta["cases"]:
        number = case["case"]
        got = crop_to(fixture.array(f"in_{number}"), tuple(case["target_hw"]))
        label = f"{number}: {case['image_hw']} to {case['target_hw']}"
        yield compare_arrays(label, got, fixture.array(f"out_{number}"))
