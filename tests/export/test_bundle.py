"""Bundles from the build machine to the board: a damaged, forged, worse or interrupted one changes nothing there."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("zstandard")
import zstandard

from export.bundle import main as bundle
from export.bundle import pack
from runtime.engines import BUNDLED
from runtime.engines.onnx import inspect
from runtime.errors import InputError, UsageError
from runtime.install import __main__ as installer
from runtime.install.archive import open_archive
from runtime.install.bundle import Manifest
from runtime.install.gate import TOLERANCE_DB
from runtime.sidecar import sidecar_path
from runtime.video import main as run_video
from tests.conftest import DEMO_CLIP
from tests.rig.bundles import engines, install, make_key, signers, version, write_pairs
from tests.standin import install_stand_in, write_plan

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    make_key(path)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    pack(engines(folder / "one"), pairs, folder / "deblur-1.0.0.tar.zst")
    return folder / "deblur-1.0.0.tar.zst"


@pytest.fixture(scope="module")
def second(first: Path, pairs: Path, key: Path) -> Path:
    """A signed bundle with other contents."""
    (first.parent / "one" / "report.md").write_text("better")
    pack(first.parent / "one", pairs, first.with_name("deblur-1.1.0.tar.zst"), key=key)
    return first.with_name("deblur-1.1.0.tar.zst")


@pytest.fixture
def board(tmp_path: Path, first: Path) -> Path:
    """A board with the first version installed."""
    assert install(first, tmp_path / "board") == 0
    return tmp_path / "board"


def members(bundle: Path) -> Members:
    content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bundle.read_bytes())).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def pack_members(path: Path, content: Members, *, last_type: bytes = tarfile.REGTYPE) -> Path:
    """Write a bundle with these members; the last one has the given tar type."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index, (name, data) in enumerate(content):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if index == len(content) - 1 and last_type != tarfile.REGTYPE:
                member.type, member.linkname, member.size = last_type, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(zstandard.ZstdCompressor().compress(buffer.getvalue()))
    return path


def test_installing_a_second_version_and_rolling_back(board: Path, second: Path, tmp_path: Path) -> None:
    assert version(board) == "1.0.0"
    assert install(second, board) == 0
    assert version(board) == "1.1.0"
    assert (board / "previous" / "manifest.json").exists()
    assert installer.main(["--to", str(board), "--rollback"]) == 0
    assert version(board) == "1.0.0"
    assert installer.main(["--to", str(board), "--rollback"]) == 0
    assert version(board) == "1.1.0"
    assert install(second, board) == 0  # again
    assert version(board) == "1.1.0"
    out = tmp_path / "sharp.mp4"
    assert run_video(["--engine", str(board / "current"), "--source", str(DEMO_CLIP), "--out", str(out)]) == 0


def test_older_versions_are_removed(board: Path, second: Path, pairs: Path, tmp_path: Path) -> None:
    assert install(second, board) == 0
    pack(engines(tmp_path / "engines"), pairs, tmp_path / "deblur-1.2.0.tar.zst")
    assert install(tmp_path / "deblur-1.2.0.tar.zst", board) == 0
    assert sorted(path.name.split("-")[0] for path in (board / "versions").iterdir()) == ["1.1.0", "1.2.0"]


def test_the_same_files_make_the_same_bundle(first: Path, pairs: Path, tmp_path: Path) -> None:
    again = tmp_path / "deblur-1.0.0.tar.zst"
    shutil.copytree(first.parent / "one", tmp_path / "one")
    (tmp_path / "one" / "report.md").unlink(missing_ok=True)
    pack(tmp_path / "one", pairs, again)
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("position", [0.001, 0.01, 0.2, 0.5, 0.8, 0.999])
def test_a_flipped_byte_changes_nothing(position: float, board: Path, second: Path, tmp_path: Path) -> None:
    content = bytearray(second.read_bytes())
    content[int(position * len(content))] ^= 0x10
    (tmp_path / "flipped.tar.zst").write_bytes(content)
    assert install(tmp_path / "flipped.tar.zst", board) == 3
    assert version(board) == "1.0.0"
    assert not (board / "versions" / "incoming").exists()


@pytest.mark.parametrize("name", ["deblur_int8_cpu.onnx", "gate/blur/0.png", "manifest.json"])
def test_a_byte_flipped_before_packing_changes_nothing(
    name: str, board: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = [
        (member, data[:-1] + bytes([data[-1] ^ 1]) if member == name else data) for member, data in members(second)
    ]
    assert install(pack_members(tmp_path / "forged.tar.zst", content), board) == 3
    assert "bundle is damaged" in capsys.readouterr().err
    assert version(board) == "1.0.0"


def add_members(*headers: tuple[bytes, bytes], path: Path) -> Path:
    """Write a bundle of members with these tar types and contents, all named manifest.json."""
    content = b""
    for kind, data in headers:
        header = tarfile.TarInfo("manifest.json")
        header.type, header.size = kind, len(data)
        content += header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    path.write_bytes(zstandard.ZstdCompressor().compress(content + bytes(10_240)))
    return path


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"3", b"5", b"6", b"7", b"X", b"\xff"])
def test_members_that_are_not_plain_files_are_refused_before_they_are_read(
    kind: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = add_members((kind, bytes(200 << 20)), (b"0", b"{}"), path=tmp_path / "pax.tar.zst")
    assert bundle.stat().st_size < 40_000
    tracemalloc.start()
    try:
        assert install(bundle, tmp_path / "board") == 3
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert "is not a plain file" in capsys.readouterr().err


HOSTILE = {
    "deep": b"[" * 200_000,
    "not UTF-8": b"\xff\xfe",
    "zero byte": b'{"name": "a", "version": "1", "files": {"a\\u0000b": "x"}, "gate_psnr_db": {}}',
    "surrogate": b'{"name": "a", "version": "1", "files": {"a\\ud800b": "x"}, "gate_psnr_db": {}}',
    "list": b'{"name": "a", "version": "1", "files": ["x.onnx"], "gate_psnr_db": ["x.onnx"]}',
    "number": b'{"name": 1, "version": "1", "files": {}, "gate_psnr_db": {}}',
    "long version": b'{"name": "a", "version": "' + b"1" * 5000 + b'", "files": {}, "gate_psnr_db": {}}',
    "long path": b'{"name": "a", "version": "1", "files": {"' + b"a" * 300 + b'": "x"}, "gate_psnr_db": {}}',
    "file as folder": b'{"name": "a", "version": "1", "files": {"a": "x", "a/b": "x"}, "gate_psnr_db": {}}',
    "dot": b'{"name": "a", "version": "1", "files": {".": "x"}, "gate_psnr_db": {}}',
    "too large": bytes((1 << 20) + 1),
}


@pytest.mark.parametrize("manifest", HOSTILE.values(), ids=HOSTILE)
def test_hostile_manifests_are_refused(manifest: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(add_members((b"0", manifest), path=tmp_path / "a.tar.zst"), tmp_path / "board") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: bundle is damaged (")


def test_nothing_after_the_signature_is_read_before_it_is_verified(
    second: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = [(name, data.replace(b"1.1.0", b"1.1.1")) for name, data in members(second)[:2]]
    bundle = pack_members(tmp_path / "forged.tar.zst", [*forged, ("junk", b"")], last_type=b"x")
    assert install(bundle, tmp_path / "board", "--signers", signers(tmp_path / "signers", key)) == 3
    assert "not signed by anyone" in capsys.readouterr().err


def test_something_after_the_last_file_is_refused(second: Path, tmp_path: Path) -> None:
    content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(second.read_bytes())).read()
    for index, more in enumerate((b"x", bytes(2 << 20))):
        bundle = tmp_path / f"{index}.tar.zst"
        bundle.write_bytes(zstandard.ZstdCompressor().compress(content + more))
        assert install(bundle, tmp_path / "board") == 3


@pytest.mark.usefixtures("no_gate")
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_installing_a_bundle_again_repairs_its_version(
    damage: str, board: Path, first: Path, second: Path, tmp_path: Path
) -> None:
    assert install(second, board) == 0
    for _ in range(3):
        intact = (board / "current").resolve()
        assert install(second, board) == 0
        assert (board / "current").resolve() == intact
        engine = intact / "deblur_int8_cpu.onnx"
        engine.unlink() if damage == "missing" else engine.write_bytes(b"a bad block")
        assert install(second, board) == 0
        assert version(board) == "1.1.0"
        assert len(list((board / "versions").iterdir())) == 2
    assert installer.main(["--to", str(board), "--rollback"]) == 0
    assert version(board) == "1.0.0"


@pytest.mark.usefixtures("no_gate")
def test_an_older_version_is_refused_unless_allowed(
    board: Path, first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(second, board) == 0
    assert install(first, board, "--force") == 2
    assert "version 1.0.0 is older than the current 1.1.0" in capsys.readouterr().err
    assert version(board) == "1.1.0"
    assert install(first, board, "--allow-downgrade") == 0
    assert version(board) == "1.0.0"


def test_order_of_versions() -> None:
    texts = ["0.9", "1.0.0-alpha", "1.0.0-rc1", "1.0.0-rc2", "1.0.0", "1.0.0.1", "1.2.0", "1.10.0", "2", "2024-11-28"]
    versions = [Manifest(name="a", version=text, files={}, gate_psnr_db={}) for text in texts]
    for low, high in itertools.pairwise(versions):
        assert low.is_older_than(high)
        assert not high.is_older_than(low)
        assert not low.is_older_than(low)
        assert not low.is_older_than(dataclasses.replace(high, name="b"))


def test_names_that_are_not_ascii(pairs: Path, tmp_path: Path) -> None:
    for part in ("blur", "sharp"):
        (tmp_path / part).mkdir()
        shutil.copy(pairs / part / "0.png", tmp_path / part / "Straße.png")
    pack(engines(tmp_path / "engines"), tmp_path, tmp_path / "deblur-1.tar.zst")
    assert install(tmp_path / "deblur-1.tar.zst", tmp_path / "board") == 0


def test_names_that_boards_cannot_read_are_not_packed(pairs: Path, tmp_path: Path) -> None:
    for name in ("a" * 200 + ".png", "a\nb.png"):
        folder = tmp_path / str(len(name))
        for part in ("blur", "sharp"):
            (folder / part).mkdir(parents=True)
            shutil.copy(pairs / part / "0.png", folder / part / name)
        with pytest.raises(InputError, match="cannot be packed"):
            pack(engines(tmp_path / f"engines{len(name)}"), folder, tmp_path / "deblur-1.tar.zst")


def _remove_last(content: Members) -> Members:
    return content[:-1]


def _add_member(content: Members) -> Members:
    return [*content, ("extra.sh", b"rm -rf /")]


def _reverse_order(content: Members) -> Members:
    return content[::-1]


def _escape_folder(content: Members) -> Members:
    manifest = json.loads(dict(content)["manifest.json"])
    manifest["files"]["../../../escaped"] = manifest["files"].pop("report.md")
    renamed = [("../../../escaped" if name == "report.md" else name, data) for name, data in content]
    return [
        ("manifest.json", json.dumps(manifest).encode()),
        *[member for member in renamed if "manifest" not in member[0]],
    ]


def _remove_gate_scores(content: Members) -> Members:
    manifest = json.loads(dict(content)["manifest.json"])
    manifest["gate_psnr_db"] = {}
    return [
        ("manifest.json", json.dumps(manifest).encode()),
        *[member for member in content if "manifest" not in member[0]],
    ]


@pytest.mark.parametrize(
    "change",
    [_remove_last, _add_member, _reverse_order, _escape_folder, _remove_gate_scores],
)
def test_a_bundle_that_differs_from_its_manifest_changes_nothing(
    change: Callable[[Members], Members], board: Path, second: Path, tmp_path: Path
) -> None:
    assert install(pack_members(tmp_path / "forged.tar.zst", change(members(second))), board) == 3
    assert version(board) == "1.0.0"
    assert not list(tmp_path.rglob("escaped"))


def test_links_are_refused(board: Path, second: Path, tmp_path: Path) -> None:
    for link_type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        assert install(pack_members(tmp_path / "link.tar.zst", members(second), last_type=link_type), board) == 3
    assert version(board) == "1.0.0"


def test_signatures(
    board: Path,
    first: Path,
    second: Path,
    key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_key(tmp_path / "other")
    assert install(second, board, "--signers", signers(tmp_path / "wrong", tmp_path / "other")) == 3
    assert "not signed by anyone in wrong" in capsys.readouterr().err
    assert version(board) == "1.0.0"
    synced = _record_synced(monkeypatch)
    assert install(second, board, "--signers", signers(tmp_path / "right", key)) == 0
    assert "allowed_signers.partial" in synced  # an empty list after a power cut would refuse every bundle
    assert "signed by builder@example.org" in capsys.readouterr().err
    assert install(first, board) == 3  # from now on a signature is required
    assert "not signed" in capsys.readouterr().err
    forged = [
        (name, data.replace(b"1.1.0", b"1.1.1") if name == "manifest.json" else data) for name, data in members(second)
    ]
    assert install(pack_members(tmp_path / "forged.tar.zst", forged), board) == 3
    assert version(board) == "1.1.0"


def test_a_worse_model_changes_nothing_without_force(
    board: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = tmp_path / "deblur-2.0.0.tar.zst"
    pack(engines(tmp_path / "worse", worse=True), pairs, worse)
    assert install(worse, board) == 4
    assert "of the current version" in capsys.readouterr().err
    assert version(board) == "1.0.0"
    assert install(worse, board, "--force") == 0
    assert version(board) == "2.0.0"


def test_a_current_version_that_no_longer_runs_is_replaced(board: Path, second: Path) -> None:
    (board / "current" / "deblur_int8_cpu.onnx").write_bytes(b"a bad block")
    assert install(second, board) == 0
    assert version(board) == "1.1.0"


def test_an_engine_with_another_score_on_this_machine_changes_nothing(
    board: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = dict(members(second))
    manifest = json.loads(content["manifest.json"])
    manifest["gate_psnr_db"]["deblur_int8_cpu.onnx"] += 1.0
    content["manifest.json"] = json.dumps(manifest).encode()
    assert install(pack_members(tmp_path / "other.tar.zst", list(content.items())), board) == 4
    assert "where it was made" in capsys.readouterr().err
    assert version(board) == "1.0.0"


def test_a_plan_that_cannot_be_built_changes_nothing(
    board: Path, second: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert install(second, board, "--plan", "tensorrt") == 4
    assert "the bundle has no FP16 or INT8 engine for a plan" in capfd.readouterr().err
    assert version(board) == "1.0.0"


@pytest.fixture
def fp16_bundle(pairs: Path, tmp_path: Path) -> Path:
    (tmp_path / "fp16").mkdir()
    shutil.copy(BUNDLED.with_name("edge-s_fp16.onnx"), tmp_path / "fp16")
    pack(tmp_path / "fp16", pairs, tmp_path / "deblur-2.0.0.tar.zst")
    return tmp_path / "deblur-2.0.0.tar.zst"


@pytest.fixture
def fp16_board(fp16_bundle: Path, pairs: Path, tmp_path: Path) -> Path:
    """A board with a first version of the same engine installed."""
    pack(fp16_bundle.with_name("fp16"), pairs, tmp_path / "deblur-1.0.0.tar.zst")
    assert install(tmp_path / "deblur-1.0.0.tar.zst", tmp_path / "board") == 0
    return tmp_path / "board"


def _build_stand_ins(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], onnx: Path | None = None) -> None:
    """Let an install build stand-ins for plans, for frames of one size; with `onnx` they compute something else."""

    def build(engine: Path, *_: object) -> Path:
        spec = dataclasses.replace(inspect(engine), width=(size[0],) * 2, height=(size[1],) * 2)
        plan = write_plan(onnx or engine, engine.parent, engine=spec)
        for path in (plan, sidecar_path(plan)):
            path.rename(path.with_name(path.name.replace(plan.stem, engine.stem)))
        return engine.with_suffix(".plan")

    monkeypatch.setattr(installer, "_build_plan", build)
    install_stand_in(monkeypatch)


def _record_synced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set that receives the name of each file that is flushed to the disk."""
    synced: set[str] = set()
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(Path(f"/proc/self/fd/{file}").readlink().name))
    return synced


@pytest.mark.parametrize("size", [(320, 256), (80, 48)], ids=["larger than the images", "smaller: two tiles"])
def test_a_plan_of_another_size_than_the_test_images_is_compared_on_the_same_frames(
    size: tuple[int, int],
    fp16_bundle: Path,
    fp16_board: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _build_stand_ins(monkeypatch, size)
    synced = _record_synced(monkeypatch)
    assert install(fp16_bundle, fp16_board, "--plan", "tensorrt-rtx") == 0
    assert {"edge-s_fp16.plan", "edge-s_fp16.plan.json"} <= synced  # or a power cut could leave them empty
    output = capsys.readouterr().err
    onnx_db, plan_db = (float(text) for text in re.findall(r"gate .*: ([0-9.]+) dB", output)[-2:])
    assert abs(onnx_db - plan_db) > TOLERANCE_DB  # the frames of the plan give another PSNR than the images
    assert version(fp16_board) == "2.0.0"
    assert install(fp16_bundle, fp16_board, "--plan", "tensorrt-rtx") == 0  # no worse than itself


def test_a_plan_that_computes_something_else_changes_nothing(
    fp16_bundle: Path,
    fp16_board: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _build_stand_ins(monkeypatch, (320, 256), engines(tmp_path / "worse", worse=True) / "deblur_int8_cpu.onnx")
    assert install(fp16_bundle, fp16_board, "--plan", "tensorrt-rtx") == 4
    assert "dB on the same frames" in capsys.readouterr().err
    assert version(fp16_board) == "1.0.0"


def test_a_full_disk_changes_nothing(
    disk: Callable[[int], Path], first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = disk(sum(len(data) for _, data in members(first)) * 3 // 2048)  # for one version and a half
    assert install(first, room / "board") == 0
    assert install(second, room / "board") == 6
    assert "No space left" in capsys.readouterr().err
    assert version(room / "board") == "1.0.0"
    assert not (room / "board" / "versions" / "incoming").exists()


CALLS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")
"""System calls of an install that change the disk, besides writes into files that nothing refers to yet."""


def _cut_power(call: int, work: Callable[[], int]) -> bool:
    """Run `work` in a process that ends abruptly at its Nth call of `CALLS`; return whether it reached that call."""
    child = os.fork()
    if child == 0:
        count = 0

        def count_calls(real: Callable[..., object]) -> Callable[..., object]:
            def exit_at_call(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == call:
                    os._exit(9)
                return real(*arguments, **options)

            return exit_at_call

        for name in CALLS:
            setattr(os, name, count_calls(getattr(os, name)))
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.fixture
def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the quality gate, which writes nothing and takes a second each time."""
    monkeypatch.setattr(installer, "require_same_quality", lambda *_: {"an engine": 30.0})
    monkeypatch.setattr(installer, "require_no_worse", lambda *_: None)


@pytest.mark.usefixtures("no_gate")
def test_a_power_cut_at_any_step_leaves_an_undamaged_version(first: Path, second: Path, tmp_path: Path) -> None:
    versions: list[str] = []
    for call in range(1, 1000):
        board = tmp_path / f"board{call}"
        assert install(first, board) == 0
        cut = _cut_power(call, lambda board=board: install(second, board))
        versions.append(version(board))
        assert install(second, board) == 0
        assert version(board) == "1.1.0"
        assert installer.main(["--to", str(board), "--rollback"]) == 0
        assert version(board) == "1.0.0"
        shutil.rmtree(board)
        if not cut:
            break
    assert len(versions) > 20
    assert versions == sorted(versions)
    assert set(versions) == {"1.0.0", "1.1.0"}


@pytest.mark.usefixtures("no_gate")
def test_a_power_cut_in_the_first_install_leaves_no_version_or_an_undamaged_one(first: Path, tmp_path: Path) -> None:
    for call in range(1, 1000):
        board = tmp_path / f"board{call}"
        cut = _cut_power(call, lambda board=board: install(first, board))
        if (board / "current").exists():
            assert version(board) == "1.0.0"
        assert install(first, board) == 0
        if not cut:
            break
    assert call > 10


@pytest.mark.usefixtures("no_gate")
def test_a_power_cut_in_a_rollback_leaves_one_of_the_two_versions(board: Path, second: Path) -> None:
    assert install(second, board) == 0
    for call in range(1, 100):
        if not _cut_power(call, lambda: installer.main(["--to", str(board), "--rollback"])):
            break
        assert version(board) in {"1.0.0", "1.1.0"}
    assert call > 3


def test_a_second_install_at_the_same_time_is_refused(
    board: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with installer.Versions(board).lock():
        assert install(second, board) == 6
    assert "another install is running" in capsys.readouterr().err


def test_wrong_arguments_are_refused(
    tmp_path: Path, pairs: Path, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, words, code in [("deblur.tar.zst", "no version", 2), ("deblur-1.0.tar.zst", "no engines", 3)]:
        assert bundle([str(tmp_path), "--out", str(tmp_path / out)]) == code
        assert words in capsys.readouterr().err
    with pytest.raises(UsageError, match="cannot sign"):
        pack(first.parent / "one", pairs, tmp_path / "a-1.tar.zst", key=tmp_path / "none")
    for action in ([], ["bundle.tar.zst", "--rollback"], ["--rollback", "--service"]):
        assert installer.main(["--to", str(tmp_path), *action]) == 2
        assert "give exactly one action" in capsys.readouterr().err
    assert installer.main(["--to", str(tmp_path), "--rollback"]) == 2
    assert install(tmp_path / "none.tar.zst", tmp_path / "board") == 3


def test_a_bundle_that_this_user_may_not_read(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)  # tests may run as root, who may read everything
        with pytest.raises(InputError, match="this user may not read it"), open_archive(first):
            pass


@pytest.mark.parametrize(
    ("gone", "words"),
    [(("gate/",), "no test images in gate/blur"), (("gate/sharp/",), "no sharp partner"), (("gate/blur/",), "no test")],
    ids=str,
)
def test_a_bundle_without_its_gate_is_an_input_error(
    gone: tuple[str, ...], words: str, board: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(dict(members(first))["manifest.json"])
    manifest["version"] = "2"
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if not name.startswith(gone)}
    kept = [(name, data) for name, data in members(first) if name in manifest["files"]]
    path = pack_members(tmp_path / "gone.tar.zst", [("manifest.json", json.dumps(manifest).encode()), *kept])
    assert install(path, board) == 3
    assert words in capsys.readouterr().err
    assert version(board) == "1.0.0"


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 900 + "]" * 900, '{"files": []}'], ids=["deep", "flat", "list"])
def test_a_manifest_of_odd_json_is_an_input_error(
    text: str, board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(pack_members(tmp_path / "odd.tar.zst", [("manifest.json", text.encode())]), board) == 3
    assert "bundle is damaged (manifest.json: " in capsys.readouterr().err
