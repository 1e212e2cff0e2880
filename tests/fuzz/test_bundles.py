"""Mutated bundles: refused in one line, and the board keeps its version."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("zstandard")
import zstandard

from export.bundle import pack
from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.rig import Case, Worker, run_cases
from tests.rig.bundles import engines, install, make_key, signers, version, write_pairs

WORDS = {
    0: "^current 1",
    2: "^error: version .* is older than the current 1.0.0",
    3: r"^error: (bundle is damaged \(|bundle is not signed)",
}
"""A version and a name are in the manifest, which nothing protects without a signature."""
_BLOCK = 512


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two versions of a bundle, the second one signed, and a board with the first one."""
    folder = tmp_path_factory.mktemp("bundles")
    pairs, made = write_pairs(folder / "pairs"), engines(folder / "engines")
    pack(made, pairs, folder / "deblur-1.0.0.tar.zst")
    make_key(folder / "key")
    signers(folder / "signers", folder / "key")
    (made / "report.md").write_text("better")
    pack(made, pairs, folder / "deblur-1.1.0.tar.zst", key=folder / "key")
    assert install(folder / "deblur-1.0.0.tar.zst", folder / "board") == 0
    return folder


def mutate(bundle: bytes, rng: random.Random) -> bytes:
    """Return a bundle with wrong bytes: in the compressed file, in a header, in the manifest, or anywhere inside."""
    if rng.random() < 0.25:
        return mutate_bytes(bundle, rng)
    content = bytearray(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bundle)).read())
    second = _BLOCK + -(-int(content[124:135], 8) // _BLOCK) * _BLOCK
    start, end = rng.choice(((0, _BLOCK), (second, second + _BLOCK), (_BLOCK, second), (0, len(content))))
    is_header = end - start == _BLOCK
    part = bytearray(mutate_bytes(bytes(content[start:end]), rng, most=2))
    if is_header:  # one whose length and checksum are right
        part = part[:_BLOCK] + bytes(max(0, _BLOCK - len(part)))
        part[148:156] = b"%06o\0 " % (sum(part[:148]) + 8 * 32 + sum(part[156:]))
    content[start:end] = part
    return zstandard.ZstdCompressor().compress(bytes(content))


def test_mutated_bundles(worker: Worker, bundles: Path, seeds: range, tmp_path: Path) -> None:
    content = (bundles / "deblur-1.1.0.tar.zst").read_bytes()

    def make_case(rng: random.Random, place: Path) -> Case:
        bundle, board = place / "mutated.tar.zst", place / "board"
        bundle.write_bytes(mutate(content, rng))
        shutil.copytree(bundles / "board", board, symlinks=True)
        options = ["--signers", str(bundles / "signers")] if rng.random() < 0.3 else []
        arguments = [str(bundle), "--to", str(board), "--provider", "cpu", *options]
        return Case("runtime.install", arguments, check=lambda code: check_board(board, code))

    run_cases(worker, "bundle", make_case, WORDS, seeds=seeds, folder=tmp_path)


def check_board(board: Path, code: int) -> str:
    """Return what is wrong with a board after an install that ended with `code`; empty if nothing is."""
    current = version(board)  # all files of it are undamaged
    if code and current != "1.0.0":
        return f"the version is {current} after a failure"
    return "an unfinished version was left" if (board / "versions" / "incoming").exists() else ""
