"""The same workers as actors of a Ray cluster, whose machines see the same files."""

from __future__ import annotations

import socket
from typing import Any

from xdyna.batch.crew import Died
from xdyna.batch.jobs import Job
from xdyna.batch.work import ClipWorker, Finished
from xdyna.errors import MissingPackage, OptionError, ResourceError

LOCAL = "local"
"""The address that starts Ray on this machine for the time of the batch."""


class RayCrew:
    """Actors of Ray, each a `ClipWorker`.

    Args:
        address: of the cluster: HOST:PORT, "auto" for one that runs on this machine, "local" to start one, or
            ray://HOST:PORT.
        gpus: how many GPUs to use, one a worker; None for all that the cluster has.
        workers: how many workers where no GPU is used.
        device: "auto", "cuda" or "cpu".

    Raises:
        MissingPackage: Ray is not installed.
        OptionError: an address that is none.
        ResourceError: there is no cluster at the address, or it has too few GPUs.
    """

    def __init__(
        self, address: str, *, gpus: int | None = None, workers: int = 1, device: str = "auto"
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPackage("ray", "for --ray", '"xdyna-animate[ray]"') from error
        self._ray: Any = ray
        self._begun = not ray.is_initialized()
        if self._begun:
            self._connect(address, workers if device == "cpu" else None)
        try:
            here = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
            if (gpus or 0) > here or (device == "cuda" and not here):
                raise ResourceError(
                    "--ray",
                    f"{gpus or 1} GPUs were asked for and the cluster has {here}",
                    "Ask for fewer, or --device cpu",
                )
            self._gpu = bool(here)
            self.places = (gpus or here) if here else workers
            cores = int(ray.cluster_resources().get("CPU", 0))
            if not self._gpu and cores < self.places:
                raise ResourceError(
                    "--workers",
                    f"{self.places} were asked for and the cluster has {cores} CPUs",
                    "Ask for fewer",
                )
        except BaseException:
            self.close()
            raise
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, int] = {}

    def submit(self, place: int, job: Job) -> None:
        """Hand a job to a place's actor; it is started where there is none."""
        if place not in self._actors:
            needs = {"num_gpus": 1, "num_cpus": 0} if self._gpu else {"num_cpus": 1}
            # no restarts by Ray: the batch decides who tries again
            kind = self._ray.remote(max_restarts=0, max_task_retries=0, **needs)(ClipWorker)
            self._actors[place] = kind.remote("cuda" if self._gpu else "cpu")
        self._running[self._actors[place].run.remote(job)] = place

    def wait(self, seconds: float) -> list[tuple[int, Finished | Died]]:
        """Results that came, and actors that died."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        results: list[tuple[int, Finished | Died]] = []
        for reference in ready:
            place = self._running.pop(reference)
            result: Finished | Died
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                result = Finished(f"unexpected: {str(error).splitlines()[-1]}", 0.0, broken=True)
            except self._ray.exceptions.RayError as error:
                result = Died(f"lost by Ray ({type(error).__name__})")
            if isinstance(result, Died) or result.broken:
                self._ray.kill(self._actors.pop(place))
            results.append((place, result))
        return results

    def close(self) -> None:
        """Kill the actors, and leave the cluster if this crew joined it."""
        for actor in getattr(self, "_actors", {}).values():
            self._ray.kill(actor)
        self._actors, self._running = {}, {}
        if self._begun:
            self._ray.shutdown()

    def _connect(self, address: str, cpus: int | None) -> None:
        if not address.strip():
            raise OptionError("--ray", "got an empty address", "Give HOST:PORT, auto or local")
        _knock(address)
        settings: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
        if address == LOCAL and cpus is not None:
            settings["num_cpus"] = cpus
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="error", **settings)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ResourceError(
                "--ray",
                f"{address!r} cannot be reached ({reason})",
                "Check `ray status`; `--ray local` starts its own",
            ) from error


def _knock(address: str) -> None:
    """Ray tries for minutes where nobody is: find that out first."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            "--ray",
            f"{address!r} cannot be reached ({error})",
            "Check the address; `--ray local` starts its own",
        ) from error
