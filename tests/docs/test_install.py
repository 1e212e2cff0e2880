"""Install commands of README.md and docs/: pip resolves them for their platforms, and apt knows their packages.

A line of docs/jetson.md is run here, resolved, looked up or parsed, or it needs a board and is in a block that says so.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.test_examples import PAGES, find_blocks

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

JETSON = ROOT / "docs" / "jetson.md"
PIP = re.compile(r"(?:pip|pip3) install ([^\n`]*)")
CLONE = re.compile(r"\.(?:\[(?P<extras>[a-z,]+)\])?")
PLACEHOLDERS = {
    ("CONTRIBUTING.md", "--upgrade NAME"),
    ("benchmarks.md", "vapoursynth==81 vapoursynth-bestsource vapoursynth-mlrt-ov vapoursynth-mlrt-ort"),
    ("export.md", "vapoursynth vapoursynth-mlrt-ort vapoursynth-mlrt-ov"),
    ("codecs.md", "--no-binary av av"),
}
"""Commands without a package of their own, for an environment of another program, or that build from source."""
BUILT_ON_BOARDS = ["pycuda", "numpy<2"]
"""PyCUDA has no wheels, and needs CUDA's compiler to build."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

GLIBC_MINOR_OF_JETPACK = {"6": 35, "7": 39}
"""Minor version of the C library: Ubuntu 22.04 and 24.04."""
PYTHON_OF_JETPACK = {"6": "3.10", "7": "3.12"}
MAJORS_OF_JETPACK = {
    "6": {"numpy": "1", "cuda-bindings": "12", "av": "17", "onnxruntime": "1", "zstandard": "0"},
    "7": {"numpy": "1", "cuda-bindings": "13", "av": "18", "onnxruntime": "1", "zstandard": "0"},
}
MAJORS = {"numpy": "2", "av": "18", "onnxruntime": "1", "opencv-python": "5", "zstandard": "0"}
MAJORS_OF_PYTHON_310 = MAJORS | {"av": "17"}


RESOLVED_ELSEWHERE = {JETSON, ROOT / "docs" / "providers.md"}
"""Pages whose commands have tests of their own, here or in test_providers.py."""


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `pip install` of a page, in code blocks and in sentences."""
    for match in PIP.finditer(page.read_text()):
        yield shlex.split(re.split(r"&&|\||;", match[1])[0], comments=True)


def _clone_extras() -> set[str]:
    """Return the extras of this project that some page installs; fail for a command that no test knows."""
    extras: set[str] = set()
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for words in _commands(page) if page not in RESOLVED_ELSEWHERE else ():
            if (page.name, shlex.join(words)) in PLACEHOLDERS:
                continue
            match = CLONE.fullmatch(words[0])
            assert match, f"{page.name}: pip install {shlex.join(words)}"
            assert len(words) == 1, f"{page.name}: pip install {shlex.join(words)}"
            extras |= set((match["extras"] or "").split(",")) - {""}
    return extras


def _requirements(extras: set[str]) -> list[str]:
    """Return the requirements of this project with some of its extras."""
    found = list(PROJECT["dependencies"])
    for extra in extras:
        for requirement in PROJECT["optional-dependencies"][extra]:
            nested = re.fullmatch(r"deblur-toolkit\[([a-z,]+)\]", requirement)
            found += _requirements(set(nested[1].split(","))) if nested else [requirement]
    return found


@cache
def _has_index() -> bool:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "/dev/null/none", "iniconfig"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "No matching distribution" not in done.stderr


def resolve(requirements: list[str], folder: Path, *, python: str, machine: str, glibc_minor: int) -> dict[str, str]:
    """Return the versions that pip chooses on another platform, by name of the package."""
    if not _has_index():
        pytest.skip("pip reaches no package index")
    platforms = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, glibc_minor + 1))]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    command += ["--target", str(folder), "--only-binary=:all:", "--python-version", python]
    command += [word for platform in platforms for word in ("--platform", f"{platform}_{machine}")]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {package["name"]: package["version"] for package in packages}


def _majors(versions: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return {name: versions[name].split(".")[0] for name in names}


@pytest.mark.parametrize("jetpack", PYTHON_OF_JETPACK)
def test_the_commands_for_a_jetson_resolve_to_versions_that_jetpack_can_load(jetpack: str, tmp_path: Path) -> None:
    """All commands at once, because they are typed one after another into one environment."""
    other = {"6": "7", "7": "6"}[jetpack]
    requirements = []
    for line in JETSON.read_text().splitlines():
        if (match := PIP.search(line)) and not re.search(rf"# JetPack {other}$", line):
            words = shlex.split(match[1], comments=True)
            requirements += words if words not in (["--no-deps", "."], BUILT_ON_BOARDS) else []
    assert len(requirements) > 5
    versions = resolve(
        requirements,
        tmp_path,
        python=PYTHON_OF_JETPACK[jetpack],
        machine="aarch64",
        glibc_minor=GLIBC_MINOR_OF_JETPACK[jetpack],
    )
    assert _majors(versions, MAJORS_OF_JETPACK[jetpack]) == MAJORS_OF_JETPACK[jetpack]
    assert "opencv-python" not in versions  # it would hide JetPack's, which has GStreamer


def test_every_command_that_may_upgrade_numpy_on_a_jetson_forbids_it() -> None:
    for words in _commands(JETSON):
        assert words == ["--no-deps", "."] or any(re.fullmatch(r"numpy(>=1\.\d+,)?<2", word) for word in words), words


@pytest.mark.parametrize(
    ("python", "machine", "glibc_minor", "extras"),
    [
        ("3.10", "x86_64", 35, {"openvino", "bundle"}),
        ("3.11", "x86_64", 36, None),
        ("3.13", "x86_64", 39, {"openvino", "bundle"}),
        ("3.12", "aarch64", 39, {"openvino", "bundle"}),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else None,
)
def test_the_commands_for_a_clone_resolve(
    python: str, machine: str, glibc_minor: int, extras: set[str] | None, tmp_path: Path
) -> None:
    """`extras` None means those of all pages."""
    requirements = _requirements(_clone_extras() if extras is None else extras)
    versions = resolve(requirements, tmp_path, python=python, machine=machine, glibc_minor=glibc_minor)
    expected = MAJORS_OF_PYTHON_310 if python == "3.10" else MAJORS
    assert _majors(versions, expected) == expected
    assert "torch" not in versions


APT = re.compile(r"apt(?:-get)? install ((?:[a-z0-9][a-z0-9.+-]+ ?)+)")
FROM_NVIDIA = {"nvidia-jetpack", "python3-libnvinfer"}
"""Packages of NVIDIA's repository, which every JetPack has in its lists."""
PAGES_WITH_APT = [*PAGES, *(ROOT / "runtime").rglob("*.py")]


def test_apt_knows_the_packages_of_documents_and_messages() -> None:
    names = {
        name for page in PAGES_WITH_APT for match in APT.finditer(page.read_text()) for name in match[1].split()
    } - FROM_NVIDIA
    assert {"python3-venv", "openssh-client", "gstreamer1.0-tools", "libgl1"} <= names
    known = _known_to_apt({"apt", *names})
    if "apt" not in known:
        pytest.skip("no lists of apt on this machine")
    assert names <= known


def _known_to_apt(names: set[str]) -> set[str]:
    if shutil.which("apt-cache") is None:
        return set()
    command = ["apt-cache", "show", "--no-all-versions", *sorted(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(re.findall(r"^Package: (\S+)$", done.stdout, re.MULTILINE))


PROVED = {
    "resolved": r"(PATH=\S+ )?\.venv/bin/pip install ",
    "looked up": r"sudo apt install ",
    "parsed": r"\.venv/bin/python -m (runtime|export|benchmarks)\.",
}
NEEDS_A_BOARD = [
    r"sudo apt update",
    r"sudo install -d ",
    r"git clone REPOSITORY ",
    r"cp runtime/models/edge-s_fp16\.onnx runtime/models/edge-s_fp16_yuv420\.onnx \.",
    r"python3 -m venv --system-site-packages \.venv",
    r'\.venv/bin/python -c "import tensorrt; ',
    r"echo 'CUDA_ENABLE_CURAND = False' > ",
    r"sudo nvpmodel -q",
    r"grep POWER_MODEL /etc/nvpmodel\.conf",
    r"sudo jetson_clocks",
    r"tegrastats ",
]


def test_every_command_for_a_jetson_is_proved_or_marked_as_not_run() -> None:
    used = set()
    for block in find_blocks(JETSON):
        for line in block.code.replace("\\\n", " ").splitlines():
            kinds = [name for name, pattern in PROVED.items() if re.match(pattern, line)]
            board = [pattern for pattern in NEEDS_A_BOARD if re.match(pattern, line)]
            used |= {*kinds, *board}
            if block.reason is None:
                continue  # test_examples runs it
            assert len(kinds) + len(board) == 1, f"{JETSON.name}:{block.line}: {line}"
            assert not board or "needs a board" in block.reason
    assert used == {*PROVED, *NEEDS_A_BOARD}
    assert any(block.reason is None for block in find_blocks(JETSON))
