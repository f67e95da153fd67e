from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 400

# Files that may be longer, each with its reason. A file that is short again must leave the table.
LONGER: dict[str, str] = {
    "src/xdyna/conditions/mediapipe.py": "one detector; half of it is the tables from MediaPipe's points to ours",
    "src/xdyna/training/trainer.py": "a run from stage to stage, with all that makes it resumable",
    "tests/convert/test_official.py": "one scenario a fault of the official tree, all on the same fake tree",
}


def too_long(root: Path, longer: dict[str, str]) -> dict[str, int]:
    """Python files of the project's folders above the limit, and their lines."""
    folders = [root / name for name in ("src", "tests", "benchmarks", "examples", "tools")]
    lengths = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    }
    return {name: lines for name, lines in lengths.items() if lines > LIMIT and name not in longer}


def test_no_python_file_is_too_long() -> None:
    assert not too_long(ROOT, LONGER), f"split these by meaning, at most {LIMIT} lines"


def test_exceptions_are_needed_and_explained() -> None:
    needed = too_long(ROOT, {})
    assert set(LONGER) <= set(needed)
    assert all(len(reason) > 20 for reason in LONGER.values())


def test_the_check_finds_a_long_file(tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "long.py").write_text("x = 1\n" * (LIMIT + 1))
    (tmp_path / "src" / "short.py").write_text("x = 1\n" * LIMIT)
    assert too_long(tmp_path, {}) == {"src/deep/long.py": LIMIT + 1}
    assert not too_long(tmp_path, {"src/deep/long.py": "a reason"})
