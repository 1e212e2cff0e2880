"""The systemd unit of a board: its settings, and its command as its user in the file system that it describes."""

from __future__ import annotations

import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("zstandard")

from export.bundle import pack
from runtime.engines import BUNDLED
from runtime.install import __main__ as installer
from runtime.install import service
from tests.conftest import DEMO_CLIP, ROOT
from tests.rig.bundles import write_pairs
from tests.rig.sandbox import PYTHON, Unit, make_user, require_namespaces, run_in_sandbox

PAGE = (ROOT / "docs" / "howto" / "service.md").read_text()
(FOLDER,) = {Path(path) for path in re.findall(r"--to (\S+)", PAGE)}


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch) -> Unit:
    monkeypatch.setattr(sys, "executable", PYTHON)
    return Unit.parse(service.render_unit(FOLDER))


def test_systemd_accepts_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert installer.main(["--to", str(tmp_path / "engines"), "--service"]) == 0
    text = capsys.readouterr().out
    assert f"--engine {tmp_path}/engines/current" in text
    assert not re.search("@[A-Z]+@", text)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "deblur.service").write_text(text)
    for command in (
        ["verify"],
        ["security", "--offline=true", "--threshold=65"],
    ):  # the threshold is ten times the score
        checked = subprocess.run(
            ["systemd-analyze", *command, tmp_path / "deblur.service"],  # noqa: S607
            check=False,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "deblur.service" not in checked.stderr


def test_the_unit_leaves_cameras_and_gpus_within_reach(unit: Unit) -> None:
    hidden_devices = {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "DynamicUser", "PrivateUsers"}
    assert not hidden_devices & unit.settings.keys()
    assert set(unit.settings["SupplementaryGroups"].split()) == {"video", "render"}
    assert "nvargus-daemon.service" in unit.orders["After"].split()
    assert "MemoryDenyWriteExecute" not in unit.settings  # CUDA compiles kernels


def test_the_command_of_the_unit_works_as_its_user(unit: Unit, tmp_path: Path) -> None:
    require_namespaces()
    (tmp_path / "mine").mkdir()
    for name in (BUNDLED.name, "edge-s_fp16.onnx"):
        shutil.copy(BUNDLED.with_name(name), tmp_path / "mine")
    pack(tmp_path / "mine", write_pairs(tmp_path / "pairs"), tmp_path / "engines-1.2.tar.zst")
    shutil.copy(DEMO_CLIP, tmp_path / "clip.mp4")
    tmp_path.chmod(0o755)
    make_user(re.findall(r"^sudo useradd .*$", PAGE, re.MULTILINE)[0], tmp_path)
    (install, *_) = re.findall(
        r"^sudo -u deblur \.venv/bin/python (-m runtime\.install .*\.zst .*)$", PAGE, re.MULTILINE
    )
    plan = FOLDER / "current" / "edge-s_fp16.plan"
    done = run_in_sandbox(
        unit,
        tmp_path,
        before=["cp /mnt/engines-1.2.tar.zst /tmp", f"{PYTHON} {install} --provider cpu", f"echo damaged > {plan}"],
        within=[
            f"{PYTHON} -c \"import socket as s; s.socket(s.AF_UNIX).connect('/tmp/argus_socket')\"",
            "if touch /opt/deblur/x 2>/dev/null || touch /mnt/x 2>/dev/null; then echo not read-only; exit 1; fi",
            'DEBLUR="--source /mnt/clip.mp4 --out sharp.mp4 --provider cpu"',
            unit.settings["ExecStart"],
            f"ls -l sharp.mp4 {plan}.json /var/cache/deblur/deblur/engines.json",
        ],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 read, 100 written" in done.stderr
    assert done.stdout.count("deblur deblur") == 3, done.stdout


@pytest.mark.parametrize("setting", ["PrivateTmp=yes", "ReadWritePaths=", "StateDirectory=other"])
def test_the_sandbox_finds_a_setting_that_is_too_strict(setting: str, unit: Unit, tmp_path: Path) -> None:
    require_namespaces()
    name, value = setting.split("=")
    strict = Unit(unit.settings | {name: value}, unit.orders)
    make_user(re.findall(r"^sudo useradd .*$", PAGE, re.MULTILINE)[0], tmp_path)
    connect = f"{PYTHON} -c \"import socket as s; s.socket(s.AF_UNIX).connect('/tmp/argus_socket')\""
    done = run_in_sandbox(strict, tmp_path, before=["true"], within=[connect, f"touch /tmp/x {FOLDER.parent}/x"])
    assert done.returncode != 0
    assert re.search("No such file|Read-only file system", done.stderr)


def test_paths_that_a_unit_cannot_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a b", "100%", "$HOME", 'a"b'):
        assert installer.main(["--to", str(tmp_path / name), "--service"]) == 2
        output = capsys.readouterr()
        assert "cannot name this path" in output.err
        assert not output.out


def test_what_keeps_the_service_from_starting_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`tmp_path` is in a folder that only its owner may enter."""
    engines, python = tmp_path / "engines", tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(KeyError):
        pwd.getpwnam(service.USER)
    closed = next(folder for folder in reversed(python.parents) if not folder.stat().st_mode & 1)
    no_user, no_python, no_engines = service.find_obstacles(engines)
    assert "there is no user deblur" in no_user
    assert f"cannot enter {closed}, but needs {python}" in no_python
    assert f"cannot enter {closed}" in no_engines

    monkeypatch.setattr(pwd, "getpwnam", lambda _: SimpleNamespace(pw_uid=12345))
    monkeypatch.setattr(sys, "executable", "/usr/bin/env")
    monkeypatch.setattr(service.runtime, "__file__", "/usr/bin/env")
    monkeypatch.setattr(service, "_find_closed_folder", lambda *_: None)
    assert "there are no engines" in next(service.find_obstacles(engines))
    engines.mkdir()
    assert f"type sudo chown -R deblur: {engines}" in next(service.find_obstacles(engines))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: SimpleNamespace(pw_uid=engines.stat().st_uid))
    assert not list(service.find_obstacles(engines))


def test_homes_are_hidden_from_the_service() -> None:
    folders = [folder for folder in service._HIDDEN if folder.is_dir()]
    assert folders
    for folder in folders:
        assert service._find_closed_folder(folder / "nvidia" / "python") == folder
