"""What a run says about itself: its config, and where, when and from what it was made."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xdyna import __version__
from xdyna.data.prepared.manifest import manifest_hash
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import to_dict

CONFIG_FILE, RECORD_FILE = "config.json", "run.json"


def write_record(folder: Path, config: TrainConfig, *, processes: int) -> None:
    """Write the resolved config, and add this start of the run to run.json.

    Each start names the command, commit, versions, hardware, and the hashes of the manifests it reads.
    """
    _write(folder / CONFIG_FILE, to_dict(config))
    path = folder / RECORD_FILE
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        starts = []
    starts.append(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "commit": git_commit(),
            "seed": config.seed,
            "xdyna": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "processes": processes,
            "manifests": {name: manifest_hash(name) for name in config.data.manifests},
        }
    )
    _write(path, {"starts": starts})


def git_commit() -> str:
    """The checkout's commit, with "+" where files differ from it; "" outside of a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        found = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return found.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


def _write(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
