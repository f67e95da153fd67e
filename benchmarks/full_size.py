"""What the published model costs on a GPU, with random weights of its widths: the tables of issue 5.

    python -m benchmarks.full_size [--minutes 8] [--ways ...] [--frames 192] [-o FOLDER]

The protocol is the official code's: 896 x 512, windows of 16 + 1 frames with an overlap of 4, guidance 7.5 with equal
text in both halves, pose and S-Face ControlNets, 25 DDIM steps. The ways are in `full_size_ways`; "official" does what
the official code does, "plain" is ours without anything that needs a GPU. Measured, each way in turn, again and again
(A B A B): a step of one window, a step of the long clip, decoding, peak memory, error against float32, and the whole
run of the quickest way. Operations and bytes are counted, and what they would take at the rates measured here.

Every number is written as it comes (FOLDER/full_size.csv, .json, .md); a way that fails is reported and left out;
rows for which --minutes leaves no time are named. `--width tiny` is a small model, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xdyna.allocator import expand_segments

expand_segments()  # as the command does, before torch is imported

import diffusers
import torch
from benchmarks.counting import count_pass, machine_rates
from benchmarks.full_size_ways import OVERLAP, STEPS, WAYS, WINDOW, Copies, Protocol, Runner, build
from benchmarks.results import Results
from benchmarks.training_step import write_profile

from xdyna.sampling import decode_stream

ERROR_STEPS = 2
FEW = 4
"""Steps of `--preset fast`."""
SPARING = ("int8", "fp8", "lent")
"""Forms that save memory rather than time: their long step is the least important."""
GIB = 2**30


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--frames", type=int, default=192, help="of the long clip")
    parser.add_argument("--size", nargs=2, type=int, default=[896, 512], metavar=("H", "W"))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--width", choices=("full", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, default=5, help="times each way's window step is measured")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument(
        "--profile", action="store_true", help="write the kernels of each way's window step, too (CUDA)"
    )
    parser.add_argument(
        "--cold", action="store_true", help="first measure a run of each way from nothing: its peak"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("full_size"))
    Bench(parser.parse_args(arguments)).run()


class Bench:
    """One session of measuring, in the order of importance."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.begin = given, time.monotonic()
        diffusers.utils.logging.set_verbosity_error()  # it warns of every .to()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        about = {"device": name, "torch": torch.__version__, "dtype": given.dtype, "size": given.size,
                 "width": given.width, "frames": given.frames, "date": time.strftime("%Y-%m-%d")}  # fmt: skip
        self.results = Results(given.output, about)
        self.runners: dict[str, Runner] = {}
        self.held: dict[str, int] = {}
        """Bytes that a way keeps beside its weights, such as recordings."""
        self.warmed: set[str] = set()
        """Ways that have seen the shapes of the long clip."""

    def left(self) -> float:
        """Seconds of the budget."""
        return 60 * self.given.minutes - (time.monotonic() - self.begin)

    def guarded(self, way: str, row: str, work: Callable[[], Any], *, needs: float = 0.0) -> Any:
        """Do some work if there is time for it; a failure is reported and drops the way."""
        if self.left() < needs:
            self.results.note(way, row, f"left out: needs about {needs:.0f} s, {self.left():.0f} s left")
            return None
        try:
            return work()
        except Exception as error:  # whatever a library raises, the others go on
            self.results.note(way, row, f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}")
            self.runners.pop(way, None)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return None

    def run(self) -> None:
        """Everything."""
        given = self.given
        rates = self.guarded("machine", "rates", lambda: machine_rates(self.device)) or {}
        for row, value in rates.items():
            self.results.add("machine", row, [value])
        exact = build(given.width, self.device)
        self.results.note("machine", "networks built", f"{time.monotonic() - self.begin:.0f} s")
        self.protocol = Protocol(given.width, given.size, self.device, exact.unet.config.in_channels)
        self.copies = Copies(exact, getattr(torch, given.dtype), self.device)
        self.guarded("machine", "counts", lambda: self.count(exact, rates))
        for name in (
            one for one in given.ways if given.cold and one != "compiled" and not WAYS[one].official
        ):
            self.guarded(name, "cold run", lambda name=name: self.cold(name), needs=30)
        torch.backends.cudnn.allow_tf32 = False
        self.exact = self.guarded("float32", "error", lambda: self.exact_latents(exact), needs=30)
        ways = [name for name in given.ways if name != "compiled"]
        for name in ways:
            self.guarded(name, "first step", lambda name=name: self.prepare(name), needs=25)
        for _ in range(given.rounds):
            for name in list(self.runners):
                self.guarded(name, "window step", lambda name=name: self.window(name), needs=10)
        for name in list(self.runners) if given.profile and self.device.type == "cuda" else ():
            path, run = given.output / f"{name}.txt", self.runners[name]
            self.guarded(name, "profile", lambda p=path, r=run: write_profile(lambda: r.steps(WINDOW, 1), p))
        for batch in (1, 2, 4, 8):
            for name in ("official", "plain", "channels-last", "fused"):
                if name in self.runners and (name != "official" or batch == 1):
                    self.guarded(name, "decode", lambda n=name, b=batch: self.decode(n, b), needs=15)
        self.long_steps(lambda name: WAYS[name].base not in SPARING)
        self.estimate()
        best = self.best()
        if best is not None:
            self.guarded(best, "whole run", lambda: self.whole(best), needs=self.expected(best, STEPS))
            self.guarded(best, "fast run", lambda: self.fast(best), needs=self.expected(best, FEW))
        self.long_steps(lambda name: not WAYS[name].official)
        if "compiled" in given.ways:
            self.guarded("compiled", "compile", self.compiled, needs=60)
        print(self.results.table(), flush=True)

    def long_steps(self, wanted: Callable[[str], bool]) -> None:
        """A step of the long clip by each of these ways."""
        for name in filter(wanted, list(self.runners)):
            self.guarded(name, "long step", lambda n=name: self.long_step(n), needs=self.windows() * 0.8)

    # -------------------------------------------------------------------------------------------- single rows

    def windows(self) -> int:
        """Windows in a step of the long clip."""
        frames = self.given.frames
        return 1 if frames <= WINDOW else -(-frames // (WINDOW - OVERLAP))

    def count(self, parts: Any, rates: dict[str, float]) -> None:
        """Operations and bytes of each network's pass, and the seconds they would take."""
        for name, flops, moved in count_pass(parts, self.protocol):
            self.results.add(name, "TFLOP", [flops / 1e12])
            self.results.add(name, "GB read and written by layers", [moved / 1e9])
            if rates:
                seconds = (
                    flops / 1e12 / rates["TFLOP/s of a product"],
                    moved / 1e9 / rates["GB/s of a copy"],
                )
                self.results.add(name, "predicted s, operations alone", [seconds[0]])
                self.results.add(name, "predicted s, bytes alone", [seconds[1]])

    def exact_latents(self, parts: Any) -> torch.Tensor:
        """Latents of one window after a few steps, float32 throughout."""
        made = Runner(WAYS["plain"], parts, self.protocol).steps(WINDOW, ERROR_STEPS).cpu()
        self.free()
        return made

    def prepare(self, name: str) -> None:
        """Make a way's networks; its first step, its error, and the memory of a window."""
        way = WAYS[name]
        parts = self.copies.get(way.base)
        before = self.reserved()
        self.runners[name] = runner = Runner(way, parts, self.protocol)
        begin = self.clock()
        runner.steps(WINDOW, 1)
        self.results.add(name, "first window step s", [self.clock() - begin])
        self.held[name] = self.reserved() - before
        others = self.others(name)
        found = runner.steps(WINDOW, ERROR_STEPS).cpu()
        self.peaks(name, "peak GiB, one window", others)
        if self.exact is not None:
            error = (found - self.exact).norm() / self.exact.norm()
            self.results.add(name, f"relative error after {ERROR_STEPS} steps", [error.item()])

    def window(self, name: str) -> None:
        """A step of one window."""
        begin = self.clock()
        self.runners[name].steps(WINDOW, 1)
        self.results.add(name, "window step s", [self.clock() - begin])

    def decode(self, name: str, batch: int) -> None:
        """Milliseconds a frame, in batches; the second of two times counts as warmed up."""
        runner, repeats = self.runners[name], 3
        latents = self.protocol.latents(WINDOW)[0].transpose(0, 1)[:batch].contiguous()
        others = self.others(name)
        runner.decode(latents)
        for _ in range(repeats):
            begin = self.clock()
            runner.decode(latents)
            self.results.add(
                name, f"decode ms a frame, {batch} at once", [1e3 * (self.clock() - begin) / batch]
            )
        self.peaks(name, f"peak GiB, decode {batch}", others)

    def long_step(self, name: str) -> None:
        """A step of the long clip; the official way is so many times its window."""
        row, frames = f"step of {self.given.frames} frames s", self.given.frames
        runner = self.runners[name]
        if runner.way.official:
            window = self.results.median(name, "window step s")
            if window is not None and not self.results.values(name, row):
                self.results.add(name, row, [self.windows() * window], note="windows x window step")
            return
        if name not in self.warmed:  # the pieces of later windows are shapes of their own
            self.warmed.add(name)
            before = self.reserved()
            runner.steps(min(frames, 3 * WINDOW), 1)
            self.held[name] += self.reserved() - before
        others = self.others(name)
        begin = self.clock()
        runner.steps(frames, 1)
        self.results.add(name, row, [self.clock() - begin])
        self.peaks(name, f"peak GiB, {frames} frames", others)

    def expected(self, name: str, steps: int) -> float:
        """Seconds of the whole run by its parts, rounded up."""
        step = self.results.median(name, f"step of {self.given.frames} frames s") or 1e9
        return 1.1 * steps * step + 10

    def estimate(self) -> None:
        """The whole run of every way, from its parts."""
        frames = self.given.frames
        for name in self.runners:
            step = self.results.median(name, f"step of {frames} frames s")
            decode = [
                self.results.median(source, f"decode ms a frame, {batch} at once")
                for source in (name, "fused")
                for batch in (1, 2)
            ]
            known = [value for value in decode if value is not None]
            if step is not None and known:
                whole = STEPS * step + frames * known[0] / 1e3
                self.results.add(name, f"{frames} frames, {STEPS} steps, decoded s, from parts", [whole])

    def best(self) -> str | None:
        """The quickest way that keeps the numbers."""
        row = f"step of {self.given.frames} frames s"
        names = [name for name in self.runners if WAYS[name].base in ("contiguous", "channels-last", "fused")]
        timed = [(self.results.median(n, row), n) for n in names if not WAYS[n].official]
        return min(((value, n) for value, n in timed if value is not None), default=(0, None))[1]

    def cold(self, name: str) -> None:
        """Two steps of the long clip and its decoding as a process begins them: what is recorded is recorded within."""
        way, self.held[name] = WAYS[name], 0
        self.runners[name] = Runner(way, self.copies.get(way.base), self.protocol)
        self.whole(name, steps=2, kind="cold")
        del self.runners[name]

    def fast(self, name: str) -> None:
        """Few steps without guidance, as `--preset fast` takes."""
        # one half is a shape of its own
        self.runners[name].steps(min(self.given.frames, 3 * WINDOW), 1, guided=False)
        self.whole(name, steps=FEW, kind="fast", guided=False)

    def whole(self, name: str, *, steps: int = STEPS, kind: str = "whole", guided: bool = True) -> None:
        """All steps and decoding, on the clock."""
        runner, frames = self.runners[name], self.given.frames
        what = f"{frames} frames, {steps} steps" + ("" if guided else " without guidance")
        others, begin = self.others(name), self.clock()
        latents = runner.steps(frames, steps, guided=guided)
        denoised = self.clock() - begin
        if not bool(latents.isfinite().all()):  # random weights may lead anywhere
            self.results.note(name, f"{kind} run", "latents not finite: others are decoded")
            latents = self.protocol.latents(frames)
        runner.begin_anew()
        self.held[name] = 0
        self.warmed.discard(name)
        begin = self.clock()
        with torch.inference_mode():
            parts = latents[0].transpose(0, 1).split(2)
            count = sum(len(pictures) for pictures in decode_stream(runner.parts.vae, parts))
        decoded = self.clock() - begin
        assert count == frames
        if kind != "cold":
            self.results.add(name, f"{what} s", [denoised])
            self.results.add(name, f"{frames} frames decoded s", [decoded])
        self.results.add(
            name, f"{what}, decoded s" + (", cold" if kind == "cold" else ""), [denoised + decoded]
        )
        self.peaks(name, f"peak GiB, {kind} run", others)

    def compiled(self) -> None:
        """Compile, once cold and once from PyTorch's cache, and measure."""
        for turn in ("cold", "again from the cache"):
            torch._dynamo.reset()
            self.copies.drop("compiled")
            runner = self.runners["compiled"] = Runner(
                WAYS["compiled"], self.copies.get("compiled"), self.protocol
            )
            begin = self.clock()
            runner.steps(WINDOW, 1)
            self.results.add("compiled", f"first window step s, {turn}", [self.clock() - begin])
            if turn == "cold":
                found = runner.steps(WINDOW, ERROR_STEPS).cpu()
                if self.exact is not None:
                    error = (found - self.exact).norm() / self.exact.norm()
                    self.results.add("compiled", f"relative error after {ERROR_STEPS} steps", [error.item()])
                rival = self.best()
                for _ in range(3):
                    for name in [one for one in (rival, "compiled") if one is not None]:
                        self.window(name)

    # -------------------------------------------------------------------------------------------- the machine

    def clock(self) -> float:
        """Seconds, when the device has done all it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def free(self) -> None:
        """Give unused memory back, and count peaks from now."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def reserved(self) -> int:
        """Bytes that PyTorch has reserved and needs."""
        self.free()
        return torch.cuda.memory_reserved() if self.device.type == "cuda" else 0

    def others(self, name: str) -> tuple[int, int]:
        """Bytes reserved, and allocated, that are not of a way: neither its weights nor its recordings.

        Peaks count from now.
        """
        own, reserved = self.copies.bytes_on_device(WAYS[name].base) + self.held[name], self.reserved()
        return reserved - own, (torch.cuda.memory_allocated() if self.device.type == "cuda" else 0) - own

    def peaks(self, name: str, row: str, others: tuple[int, int]) -> None:
        """GiB reserved, and allocated, at most since `others` was asked."""
        cuda = self.device.type == "cuda"
        reserved = torch.cuda.max_memory_reserved() if cuda else others[0]
        allocated = torch.cuda.max_memory_allocated() if cuda else others[1]
        self.results.add(name, row, [(reserved - others[0]) / GIB])
        self.results.add(name, row.replace("peak", "allocated"), [(allocated - others[1]) / GIB])


if __name__ == "__main__":
    main()
