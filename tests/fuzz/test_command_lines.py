"""Random command lines of real options with good, odd and hostile values: each ends with one line."""

from __future__ import annotations

import argparse
import importlib
import random
import shutil
from pathlib import Path

import cv2
import pytest

from tests.conftest import make_image, write_clip, write_engine
from tests.fuzz.rig import Case, Worker, run_cases
from tests.rig.bundles import write_pairs

WORDS = {
    0: "",
    2: "error: |^failed  ",
    3: "error: |^failed  ",
    4: "error: |^failed  ",
    5: "error: ",
    6: "error: |^failed  ",
    8: "error: engine gave an impossible frame",  # --strict
}
MODULES = (
    *["runtime.video"] * 8, *["runtime.batch"] * 3, *["runtime.install"] * 2, *["export"] * 2, "export.triton",
    "export.bundle", "train.synthetic", "train.exposures", "benchmarks.quality", "benchmarks.report",
)  # fmt: skip
NUMBERS = (
    "0", "1", "2", "3", "-1", "0.2", "1e3", "1e-9", "1e400", "-0", "nan", "inf", "-inf", "1_0", " 3", "3 ", "٣", "0x10",
    "9" * 20, "9" * 5000, "", "one", "1,5",
)  # fmt: skip
SIZES = (
    "64x48",
    "32x32",
    "48X32",
    "0x0",
    "1x1",
    "-1x-1",
    "64",
    "64x",
    "x48",
    "64x48x3",
    "9999999x9999999",
    "1e2x3",
    "",
)
PATHS = (
    "clip.mp4", "image.png", "frames", "empty", "empty.mp4", "junk.mp4", "junk.png", "missing.mp4", "missing/", "", " ",
    ".", "nested/out.mp4", "new.mp4", "new.mkv", "new.png", "new", "new.xyz", "a" * 300, "a" * 250 + ".mp4",
    "clip.mp4/x",
    "two\nlines.mp4", "Straße 東京.mp4", "\udcff.mp4", "-.mp4", "--", "*.png", "frames/*.png", "frames/[", "**",
    "dangling",
    "loop", "invert.onnx", "invert.plan", "pairs", "report.json", "@clip.mp4", "@missing", "${HOME}", "${NO_SUCH_NAME}",
    "$(id)", "%d.png", "new_%03d.png", "NUL", "con", "~", "null:", "file:clip.mp4", "concat:clip.mp4", "pipe:1",
    "data:,x", "edge-s",
)  # fmt: skip
ADDRESSES = (
    "rtsp://127.0.0.1:9/a",
    "rtmp://127.0.0.1:9/a",
    "http://127.0.0.1:9/",
    "rtsp://",
    "rtsp:/a",
    "http://[::1",
    "udp://@",
)
SERVE = (
    "0",
    "127.0.0.1:0",
    "localhost:0",
    "-1",
    "65536",
    "99999999",
    "",
    ":",
    "::",
    "[",
    "127.0.0.1:",
    "127.0.0.1:x",
    "x",
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "--threads": ("1", "2", "64", "0", "-1", "1.5", "x", ""),
    "--cpus-per-worker": ("1", "2", "0", "-1", "x"),
    "--serve": SERVE,
    "--serve-token": ("@image.png", "@missing", "${NO_SUCH_NAME}", "short", "a" * 32, "", "\n" * 20),
    "--source": ("clip.mp4", "image.png", "frames", *PATHS, *ADDRESSES),
    "--engine": (
        "invert.onnx",
        "invert.onnx",
        "invert.onnx",
        *PATHS,
        "triton://127.0.0.1:9/x",
        "triton://",
        "invert.onnx@cpu",
    ),
    "--raw": ("64x48@25", "64x48@0", "64x48", "@", "64x48@nan", "64x48@30000/1001", "64x48@1/0", "99999x99999@1"),
    "--precision": ("fp32", "fp16,int8", "", ",", "fp32,fp32", "unknown", "FP32"),
    "--open-s": ("0.2", "0", "-1", "nan", "x"),
    "--timeout-s": ("0.2", "0", "-1", "nan", "x"),
    "--skip-sharp": ("auto", "off", "0.5", "2", "nan", "x"),
    "--batch": ("1", "2", "0", "-1", "x"),
    "--compute-capability": ("8.9", "8.9,12.0", "", "x", "8"),
    "--pairs": ("pairs", "pairs", *PATHS),
    "--lengths": ("3", "1", "0", "-1", "2", "99", "x"),
}
GOOD: dict[str, tuple[str, ...]] = {
    "--source": ("clip.mp4", "image.png", "frames"),
    "--engine": ("invert.onnx",),
    "--out": ("new.mp4", "new.mkv", "new.png", "new", "null:"),
    "--pairs": ("pairs",),
    "--to": ("new",),
    "--stats": ("new.json",),
    "--provider": ("cpu", "auto"),
}
"""Values that fit together more often than not, of which most command lines should have some."""
NEVER = {"--ray", "--show", "--help", "--version", "--rebuild", "--device", "--classical", "--debug"}
"""Options that start other programs, open a window, run for long, or print a traceback."""


def write_files(folder: Path) -> Path:
    """Write files of all kinds for command lines to name, and return their folder."""
    for name in ("frames", "empty", "nested"):
        (folder / name).mkdir(parents=True)
    write_clip(folder / "clip.mp4", audio="aac")
    for index in range(3):
        cv2.imwrite(str(folder / "frames" / f"{index}.png"), make_image(32, 24, seed=index))
    cv2.imwrite(str(folder / "image.png"), make_image(64, 48))
    write_engine(folder / "invert.onnx")
    write_pairs(folder / "pairs")
    for name in ("junk.mp4", "junk.png", "invert.plan", "report.json"):
        (folder / name).write_bytes(b"junk" * 99)
    (folder / "empty.mp4").touch()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("command_lines") / "files")


def make_value(action: argparse.Action, rng: random.Random) -> str:
    """Return a value for an option: one of those that it names, or one that is odd for its kind."""
    name = next(iter(action.option_strings), "")
    if name in GOOD and rng.random() < 0.8:
        return rng.choice(GOOD[name])
    if name in SETTINGS:
        return rng.choice(SETTINGS[name])
    if action.choices and rng.random() < 0.9:
        return rng.choice(sorted(action.choices))
    kind = str(action.metavar or "")
    if action.type in (int, float) or kind in {"N", "S", "F", "MS", "PX", "US", "DB"}:
        return rng.choice(NUMBERS)
    return rng.choice(SIZES if "WxH" in kind else PATHS)


def make_arguments(parser: argparse.ArgumentParser, rng: random.Random) -> list[str]:
    """Return a command line with all options that are mandatory (nearly always), and some of the others."""
    arguments: list[str] = []
    actions = [action for action in parser._actions if not NEVER & set(action.option_strings)]
    for action in rng.sample(actions, len(actions)):
        is_needed = action.required or "--source" in action.option_strings or "--engine" in action.option_strings
        if rng.random() > (0.95 if is_needed or "--out" in action.option_strings else 0.08):
            continue
        for _ in range(rng.choice((1, 1, 1, 1, 2)) if isinstance(action, argparse._AppendAction) else 1):
            arguments += rng.choice(action.option_strings).split() if action.option_strings else []
            if action.nargs != 0:
                arguments.append(make_value(action, rng))
    if "--source" in parser._option_string_actions and "--source" not in arguments:
        arguments += ["--source", "clip.mp4"]  # the default is a camera
    if "--out" in parser._option_string_actions and "--out" not in arguments:
        arguments += ["--out", "new"]  # the default may be a window, or a folder elsewhere
    return arguments


def build_parser(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    loaded = importlib.import_module(module)
    return (loaded if hasattr(loaded, "build_parser") else importlib.import_module(f"{module}.__main__")).build_parser()


def test_random_command_lines(worker: Worker, files: Path, seeds: range, tmp_path: Path) -> None:
    def make_case(rng: random.Random, place: Path) -> Case:
        shutil.copytree(files, place, symlinks=True, dirs_exist_ok=True)
        module = rng.choice(MODULES)
        return Case(module, make_arguments(build_parser(module), rng), sorted(place.glob("new*")))

    run_cases(worker, "command-line", make_case, WORDS, seeds=seeds, folder=tmp_path)
