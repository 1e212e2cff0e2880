"""Folders of images through the command line: every file keeps its name, its format and its place in the tree."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from runtime.image_files import read_image
from runtime.sinks import open_sink
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import make_image
from tests.runtime.test_odd_files import arguments
from tests.runtime.test_sinks import source_info

TREE = ["a.jpg", "b.png", "day 1/a.JPG", "day 1/cam/c.webp", "day 2/a.jpg", "day 2/d.tif", "e.bmp"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index, name in enumerate(TREE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), make_image(40, 30, seed=index))
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def kind(path: Path) -> str | None:
    with Image.open(path) as image:
        return image.format


@pytest.mark.parametrize("pattern", ["", "/**/*", "/**/*.*"])
def test_names_formats_and_the_tree_are_kept(pattern: str, photos: Path, invert: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharp"
    assert main(arguments(invert, Path(f"{photos}{pattern}"), out)) == 0
    assert tree(out) == sorted(TREE)
    for name in TREE:
        assert kind(out / name) == kind(photos / name)
        change = read_image(out / name).astype(int) - (255 - read_image(photos / name).astype(int))
        assert np.abs(change).max() <= (10 if name.lower().endswith("jpg") else 0)


def test_a_pattern_keeps_the_tree_below_its_first_wildcard(photos: Path, invert: Path, tmp_path: Path) -> None:
    assert main(arguments(invert, photos / "day*" / "*.jpg", tmp_path / "sharp")) == 0
    assert tree(tmp_path / "sharp") == ["day 2/a.jpg"]
    assert main(arguments(invert, photos / "day 1" / "a.JPG", f"{tmp_path}/one/")) == 0
    assert tree(tmp_path / "one") == ["a.JPG"]


@pytest.mark.parametrize("pattern", ["", "/**/*"])
def test_outputs_of_an_earlier_run_are_not_restored_again(
    pattern: str, photos: Path, invert: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert main(arguments(invert, Path(f"{photos}{pattern}"), photos / "sharp", "-y")) == 0
    assert tree(photos / "sharp") == sorted(TREE)
    assert len(open_source(str(photos / "day 2"), outputs=[photos]).info.files) == 2  # here it is the source


def test_hidden_files_of_a_folder_are_not_read(photos: Path) -> None:
    (photos / ".trash").mkdir()
    for name in ("._a.jpg", ".trash/a.jpg"):
        (photos / name).write_bytes(b"not an image")
    assert len(open_source(str(photos)).info.files) == len(TREE)


def test_the_tree_of_the_source_is_refused_as_output(photos: Path, invert: Path, capsys: object) -> None:
    before = {name: (photos / name).read_bytes() for name in TREE}
    assert main(arguments(invert, Path(f"{photos}/**/*.jpg"), photos, "-y")) == 2
    assert "output is the source" in capsys.readouterr().err
    assert {name: (photos / name).read_bytes() for name in tree(photos)} == before


def test_two_images_with_one_output_are_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    files = (photos / "a.jpg", photos / "day 2" / "a.jpg")
    with pytest.raises(UsageError, match="and another image have the output"):
        open_sink(f"{tmp_path}/out/", source_info(frame_count=2, files=files))
    assert not (tmp_path / "out").exists()


def test_an_image_with_the_partial_name_of_another_is_refused(photos: Path, tmp_path: Path) -> None:
    files = (photos / "a.partial.jpg", photos / "a.jpg")
    with pytest.raises(UsageError, match=r"output has the name of a.jpg while that is unfinished: .*a\.partial\.jpg"):
        open_sink(f"{tmp_path}/out/", source_info(frame_count=2, files=files))
    assert not (tmp_path / "out").exists()


def test_one_warning_for_each_kind_of_loss(invert: Path, tmp_path: Path, capsys: object) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "in" / f"{name}.png")
        (tmp_path / "in" / f"{name}.png").rename(tmp_path / "in" / f"{name}.jpg")  # a PNG with a wrong name
    assert main(arguments(invert, tmp_path / "in", tmp_path / "out")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "alpha" in line]
    assert len(lines) == 1
    assert lines[0].endswith("alpha not kept (write .png, .webp or .tif to keep it): a.jpg and 2 more")
    assert kind(tmp_path / "out" / "a.jpg") == "JPEG"


def test_a_forgotten_suffix_is_an_error(clip: Path, invert: Path, tmp_path: Path, capsys: object) -> None:
    out = tmp_path / "m1"
    assert main(arguments(invert, clip, out)) == 2
    assert f"error: output has no suffix: {out}; give {out}/ for a folder of images, or a file such as {out}.mp4" in (
        capsys.readouterr().err
    )
    assert not out.exists()
    cv2.imwrite(str(tmp_path / "a.jpg"), make_image(40, 30))
    assert main(arguments(invert, tmp_path / "a.jpg", out)) == 2
    assert f"or a file such as {out}.jpg" in capsys.readouterr().err
    assert main(arguments(invert, clip, f"{out}/")) == 0
    assert len(tree(out)) == 10
    assert main(arguments(invert, tmp_path / "a.jpg", out, "-y")) == 0  # the folder exists now
    assert (out / "a.jpg").exists()
    assert main(arguments(invert, tmp_path / "a.jpg", f"{tmp_path}/by.date/")) == 0
    assert tree(tmp_path / "by.date") == ["a.jpg"]
