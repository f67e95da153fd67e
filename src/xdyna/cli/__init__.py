"""The `xdyna` command. Nothing heavy is imported before a verb needs it, so that help is instant."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdyna import __version__
from xdyna.allocator import expand_segments
from xdyna.cli.batch import add_batch
from xdyna.cli.evaluate import add_evaluate
from xdyna.cli.study import add_study
from xdyna.data.prepared.options import PrepareOptions, SynthOptions
from xdyna.errors import OptionError, XdynaError
from xdyna.flags import Bars, add_options, add_verb, given_options, say
from xdyna.options import AnimateOptions, from_mapping
from xdyna.synthbench.command import add_synthbench

CONDITION_FIELDS = (
    "frames", "start", "stride", "fps", "size", "align", "detector", "keypoints", "reference_keypoints", "dwpose",
    "person", "min_score", "smooth", "face_mode", "overwrite",
)  # fmt: skip
"""The options of `xdyna animate` that `xdyna conditions` has too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 2 a user's mistake, 130 interrupted, or the verb's own."""
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    chosen.arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO if chosen.verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    expand_segments()  # before a verb imports torch
    try:
        return chosen.run(chosen) or 0
    except XdynaError as error:
        print(f"xdyna: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("xdyna: interrupted; nothing was left under the final name", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # the reader of our output went away (`xdyna models | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def build_parser() -> argparse.ArgumentParser:
    """The command's parser: one sub-parser a verb."""
    parser = argparse.ArgumentParser(
        prog="xdyna",
        description="Animate a picture of a person with a driving video, in a living scene.",
        epilog="Start with `xdyna demo`, then `xdyna animate photo.jpg dance.mp4`. "
        "Each verb has its own --help. Without --model, the small model in the package is used.",
    )
    parser.add_argument("--version", action="version", version=f"xdyna {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_animate(verbs)
    add_batch(verbs)
    _add_conditions(verbs)
    _add_convert(verbs)
    _add_models(verbs)
    _add_prepare(verbs)
    _add_synth(verbs)
    _add_train(verbs)
    add_evaluate(verbs)
    add_synthbench(verbs)
    add_study(verbs)
    _add_demo(verbs)
    return parser


# ------------------------------------------------------------------------------------------------ verbs


def run_animate(chosen: argparse.Namespace) -> int | None:
    """`xdyna animate`; also each of the processes that `--gpus` or torchrun start, the first of which writes."""
    from xdyna.animate import animate_file, default_output, help_animate
    from xdyna.machine import choose_devices
    from xdyna.ranks import is_rank, joined, launch

    image, video, options = _animate_inputs(chosen)
    if chosen.gpus is not None and not is_rank():
        devices = choose_devices(chosen.gpus, options.device)
        if len(devices) > 1:
            return launch(chosen.arguments, devices)
        options = dataclasses.replace(options, device=devices[0])
    output = Path(chosen.output) if chosen.output else default_output(image, video)
    with joined(options.device) as (hosts, device), Bars(chosen.quiet) as bars:
        options = dataclasses.replace(options, device=device)
        if hosts.rank > 0:
            help_animate(options, hosts)
            return None
        result = animate_file(image, video, output, options=options, progress=bars, hosts=hosts)
    say(*(path for path in (result.video, result.settings, result.comparison, result.sheet) if path))
    return None


def _animate_inputs(chosen: argparse.Namespace) -> tuple[str, str, AnimateOptions]:
    """Picture, driving video and options, as named or as an earlier run's settings say."""
    from xdyna.animate import repeat_settings

    given = given_options(chosen, AnimateOptions)
    if chosen.repeat is not None:
        if chosen.image or chosen.video:
            raise OptionError("--from", "takes the inputs from the file, so none may be given beside it")
        image, video, options = repeat_settings(chosen.repeat)
        return image, video, dataclasses.replace(options, **given)
    if chosen.image is None or chosen.video is None:
        raise OptionError(
            "xdyna animate", "needs a picture and a driving video", "xdyna animate photo.jpg dance.mp4"
        )
    return chosen.image, chosen.video, from_mapping(AnimateOptions, given, source="command line")


def run_conditions(chosen: argparse.Namespace) -> None:
    """`xdyna conditions`."""
    from xdyna.condition_files import write_conditions

    options = from_mapping(AnimateOptions, given_options(chosen, AnimateOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        paths = write_conditions(
            chosen.video,
            chosen.output,
            reference=chosen.reference,
            model=chosen.of_model,
            options=options,
            progress=bars,
        )
    say(*paths)


def run_convert(chosen: argparse.Namespace) -> None:
    """`xdyna convert`."""
    import torch

    from xdyna.convert import convert_base, convert_official

    convert = {"official": convert_official, "base": convert_base}[chosen.format]
    with Bars(chosen.quiet) as bars:
        report = convert(
            chosen.source,
            chosen.output,
            dtype=getattr(torch, chosen.dtype),
            check=chosen.check,
            progress=bars,
        )
    say(*report.lines())


def run_models(chosen: argparse.Namespace) -> None:
    """`xdyna models`."""
    from xdyna.weights import describe_models

    for model in describe_models(chosen.folder, hashes=not chosen.quick):
        state = "here" if model.here else "not here"
        say(f"{model.name}: {model.title}", f"  {state}: {model.folder}", f"  source: {model.source}")
        facts = {
            "licence": model.licence,
            "sha256": model.hash,
            "problem": model.problem,
            "to get it": model.remedy,
        }
        say(*(f"  {name}: {value}" for name, value in facts.items() if value))
        for part in model.parts:
            mark = "x" if part.here else " "
            need = "" if part.required else ", optional"
            say(f"  [{mark}] {part.name}: {part.file} ({part.purpose}{need})")
            where = (
                f"{part.size / 2**20:.1f} MiB, sha256 {part.hash or 'not computed'}"
                if part.here
                else part.source
            )
            say(f"      {where}{', ' + part.licence if part.licence else ''}")
        say("")
    if chosen.folder is None:
        _say_networks(hashes=not chosen.quick)


def _say_networks(hashes: bool) -> None:
    from xdyna.evaluation.listing import describe_networks

    say(*describe_networks(hashes=hashes))


def run_prepare(chosen: argparse.Namespace) -> None:
    """`xdyna prepare`."""
    from xdyna.data.prepared.prepare import prepare

    options = from_mapping(PrepareOptions, given_options(chosen, PrepareOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        prepared = prepare(chosen.videos, chosen.output, options=options, progress=bars)
    say(*prepared.lines())


def run_synth(chosen: argparse.Namespace) -> None:
    """`xdyna synth`."""
    from xdyna.data.prepared.synth import synth

    options = from_mapping(SynthOptions, given_options(chosen, SynthOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        prepared = synth(chosen.output, options=options, progress=bars)
    say(*prepared.lines())


def run_train(chosen: argparse.Namespace) -> None:
    """`xdyna train`."""
    from xdyna.training import run

    if not chosen.quiet:
        logging.getLogger("xdyna.training").setLevel(logging.INFO)
    progress = run(chosen.config, chosen.output, overrides=chosen.set, max_minutes=chosen.max_minutes)
    if progress.finished:
        say(
            f"{chosen.output}: trained. A model folder: python -m xdyna.training export {chosen.output} MODEL"
        )
    else:
        say(f"{chosen.output}: stopped before its end. The same command goes on.")


def run_demo(chosen: argparse.Namespace) -> None:
    """`xdyna demo`."""
    from xdyna.demo import run_demo as demo

    with Bars(chosen.quiet) as bars:
        result = demo(Path(chosen.output), progress=bars)
    say(*(path for path in (result.video, result.settings, result.comparison, result.sheet) if path))


# ---------------------------------------------------------------------------------------------- parsers


def _add_animate(verbs: Any) -> None:
    parser = add_verb(
        verbs, "animate", run_animate,
        help="a picture and a driving video become a video",
        description="Make a video in which the person of IMAGE moves as the person in VIDEO does.\n\n"
        "Beside OUT.mp4 stands OUT.json with every setting; `xdyna animate --from OUT.json -o AGAIN.mp4`\n"
        "repeats the run. The result is marked as AI-generated in its metadata.",
        epilog="examples:\n"
        "  xdyna animate photo.jpg dance.mp4 -o result.mp4\n"
        "  xdyna animate photo.jpg dance.mp4 --frames 32 --stride 2 --compare\n"
        "  xdyna animate photo.jpg dance.mp4 --model ./x-dyna --steps 25 --offload",
    )  # fmt: skip
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="picture of a person")
    parser.add_argument(
        "video", nargs="?", metavar="VIDEO", help="driving video of another (or the same) person"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="result, .mp4 or .gif (default: IMAGE_VIDEO.mp4)"
    )
    parser.add_argument(
        "--from", dest="repeat", metavar="JSON", help="repeat the run that this file describes"
    )
    parser.add_argument(
        "--gpus", metavar="N|IDS|auto", help="share the clip's windows over these GPUs of this machine"
    )
    add_options(parser, AnimateOptions)


def _add_conditions(verbs: Any) -> None:
    parser = add_verb(
        verbs, "conditions", run_conditions,
        help="the pose and face clips that a driving video turns into",
        description="Write pose.mp4, face.mp4, keypoints.npz and preview.png: what the networks get to see of\n"
        "VIDEO, aligned to the person in --reference where one is given.",
    )  # fmt: skip
    parser.add_argument("video", metavar="VIDEO", help="driving video")
    parser.add_argument("--reference", metavar="IMAGE", help="picture of the person to align to")
    parser.add_argument(
        "--model",
        dest="of_model",  # what AnimateOptions calls "model" has a default of its own
        metavar="NAME|DIR",
        help="whose networks: their size, and face landmarks for those that read them (default: the published model's)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    add_options(parser, AnimateOptions, only=CONDITION_FIELDS)


def _add_convert(verbs: Any) -> None:
    parser = add_verb(
        verbs, "convert", run_convert,
        help="published weights to our layout",
        description="Turn the official repository's pretrained_weights/ folder into a model folder of safetensors.\n"
        "Every key is accounted for; anything missing, extra or of a wrong shape is an error.",
        epilog="examples:\n"
        "  xdyna convert official pretrained_weights --check\n"
        "  xdyna convert official pretrained_weights -o x-dyna\n"
        "  xdyna convert base pretrained_weights -o base --dtype float32",
    )  # fmt: skip
    parser.add_argument(
        "format",
        choices=["official", "base"],
        help="official: the published X-Dyna; base: what training starts from, with a fresh "
        "Dynamics-Adapter and S-Face embedding (configs/train/sd15.toml)",
    )
    parser.add_argument("source", metavar="SRC", help="the pretrained_weights folder")
    parser.add_argument("-o", "--output", metavar="DIR", help="the model folder to write")
    parser.add_argument("--check", action="store_true", help="only report, write nothing")
    parser.add_argument(
        "--dtype", choices=["float16", "bfloat16", "float32"], default="float16", help="number format"
    )


def _add_models(verbs: Any) -> None:
    parser = add_verb(
        verbs, "models", run_models, help="known models: where they come from, licence, what is here"
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where to look for parts on disk")
    parser.add_argument("--quick", action="store_true", help="do not compute hashes of large files")


def _add_prepare(verbs: Any) -> None:
    parser = add_verb(
        verbs, "prepare", run_prepare,
        help="videos to clips that training reads",
        description="Find shots in videos, and keypoints and masks of the people in them, and write a folder with a\n"
        "manifest. The same command again does only what is missing; other videos can be added to the folder.",
        epilog="examples:\n"
        "  xdyna prepare dances/ -o data --kind human\n"
        "  xdyna prepare waterfalls/ fire.mp4 -o data --kind scene --rewrite 512\n"
        "  xdyna prepare UBC_dataset -o data --layout ubc --split train",
    )  # fmt: skip
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEOS", help="videos, folders, or what --layout asks for"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the prepared folder")
    add_options(parser, PrepareOptions)


def _add_synth(verbs: Any) -> None:
    parser = add_verb(
        verbs, "synth", run_synth,
        help="clips of the synthetic world, as `prepare` would write them",
        description="Render people and scenes about which everything is known, in the layout of prepared videos.\n"
        "The same command again does only what is missing.",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the prepared folder")
    add_options(parser, SynthOptions)


def _add_train(verbs: Any) -> None:
    parser = add_verb(
        verbs, "train", run_train,
        help="train a model by a config file",
        description="Train by a TOML config (configs/train/). Stopped runs go on where they were: same command.",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the run")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one setting")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop cleanly after M minutes")


def _add_demo(verbs: Any) -> None:
    parser = add_verb(verbs, "demo", run_demo, help="animate the demo picture that ships with the package")
    parser.add_argument("-o", "--output", metavar="DIR", default="outputs", help="folder (default: outputs)")


if __name__ == "__main__":
    sys.exit(main())
