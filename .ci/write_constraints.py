"""Write constraints.txt: the exact versions of the packages in this environment, and the runtime's on older Pythons.

A package that needs a newer Python than the oldest one that the project supports gets an environment marker. For the
older Pythons pip resolves the runtime again; the versions that fit every Python stay as they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "constraints.txt"
OLDEST = (3, 10)
NEWEST = (3, 13)
UNPINNED = {"deblur-toolkit", "pip", "setuptools", "wheel"}
HEAD = "# Versions that CI passed with. Written by `make constraints`; CONTRIBUTING.md says when.\n"


def pin_installed() -> dict[str, tuple[str, str]]:
    """Return the name of every installed package with its version, without a local suffix, and its Requires-Python."""
    pins = {}
    for package in distributions():
        name = canonicalize_name(package.metadata["Name"])
        if name not in UNPINNED:
            pins[name] = (package.version.partition("+")[0], package.metadata.get("Requires-Python") or "")
    return pins


def find_oldest_python(requires_python: str) -> tuple[int, int]:
    """Return the oldest supported Python that a package accepts."""
    accepted = SpecifierSet(requires_python)
    minors = range(OLDEST[1], NEWEST[1] + 1)
    return next((OLDEST[0], minor) for minor in minors if accepted.contains(f"3.{minor}.99"))


def resolve_runtime(python: tuple[int, int], constraints: Iterable[str]) -> dict[str, str]:
    """Return the versions that pip would install for the runtime on another Python."""
    version = ".".join(map(str, python))
    with tempfile.TemporaryDirectory() as folder:
        allowed, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        allowed.write_text("\n".join(constraints))
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        pip += ["--python-version", version, "--only-binary", ":all:", "--target", folder]
        pip += ["--constraint", str(allowed), "--report", str(report), str(ROOT)]
        subprocess.run(pip, check=True)  # noqa: S603 - arguments of this file only
        packages = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {canonicalize_name(entry["name"]): entry["version"].partition("+")[0] for entry in packages}


def format_constraints(pins: Mapping[str, tuple[str, str]]) -> str:
    """Return the text of constraints.txt."""
    oldest = {name: find_oldest_python(requires) for name, (_, requires) in pins.items()}
    unmarked = [f"{name}=={pins[name][0]}" for name in pins if oldest[name] == OLDEST]
    lines = list(unmarked)
    for name, python in oldest.items():
        if python != OLDEST:
            lines.append(f'{name}=={pins[name][0]}; python_version >= "{python[0]}.{python[1]}"')
    boundary = max(oldest.values())
    for minor in range(OLDEST[1], boundary[1]):
        older = resolve_runtime((3, minor), unmarked)
        for name, version in older.items():
            if name not in UNPINNED and oldest.get(name, boundary) > (3, minor):
                lines.append(f'{name}=={version}; python_version == "3.{minor}"')
    return HEAD + "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(format_constraints(pin_installed()))
