"""No secret of an address is shown or becomes the name of a file, whatever the address looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import redaction
from runtime.errors import InputError, UsageError
from runtime.redaction import redact, redact_address
from runtime.sources import open_source
from runtime.urls import is_mistyped_address, is_url, resolve_secret, resolve_secrets
from runtime.video import main
from tests.rig import free_port


@pytest.fixture(autouse=True)
def values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_values", {})


SHOWN = {
    "rtsp://admin:p%40S3CRET@10.0.0.7:554/live?token=S3CRET&channel=1": "rtsp://***@10.0.0.7:554/live?token=***&channel=1",
    "rtsp://10.0.0.7/live": "rtsp://10.0.0.7/live",
    "udp://@239.0.0.1:1234?ttl=2": "udp://@239.0.0.1:1234?ttl=2",
    "srt://h:1?mode=caller&passphrase=S3CRET&latency=200": "srt://h:1?mode=caller&passphrase=***&latency=200",
    "https://h/x.m3u8?access_token=S3CRET;api_key=S3CRET&sig=S3CRET": "https://h/x.m3u8?access_token=***;api_key=***&sig=***",
    "https://h/a.mp4?X-Amz-Signature=S3CRET": "https://h/a.mp4?X-Amz-Signature=***",
    "https://h/a.mp4?S3CRET": "https://h/a.mp4?***",
    "https://h/a.mp4#S3CRET": "https://h/a.mp4#***",
    "rtmp://a.example/live2/S3CRET": "rtmp://a.example/live2/***",
    "RTMPS://a.example:443/app/inst/S3CRET?x=S3CRET": "RTMPS://a.example:443/app/***?x=***",
    "rtmp://a.example/live": "rtmp://a.example/live",
    "rtsp://admin:S3C/RET@10.0.0.7/live": "rtsp://***@10.0.0.7/live",
    "rtsp://admin:S3C?R#E@T@10.0.0.7/live": "rtsp://***@10.0.0.7/live",
    "rist://u:S3CRET@h/x": "rist://***@h/x",
    "rtsp://h/user=admin_password=S3CRET_channel=1_stream=0.sdp?real_stream": (
        "rtsp://h/user=***_password=***_channel=1_stream=0.sdp?real_stream"
    ),
    "rtsp:/u:S3CRET@h/x": "***@h/x",
    "rtsp//u:S3CRET@h/x": "***@h/x",
    "u:S3CRET@h/x": "***@h/x",
    "folder/clip 1.mp4": "folder/clip 1.mp4",
    "git@h:x": "git@h:x",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items())
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact_address(text) == redact(text) == redact(shown) == shown
    for sentence in ("cannot open {}!", "lost: {}; check it", "('{}')", "{}\n", "one {}, two"):
        assert redact(sentence.format(text)) == sentence.format(shown)
    assert str(InputError("lost", text, hint="check it")) == f"lost: {shown}; check it"
    assert str(InputError(f"lost {text}", hint="check it")) == f"lost {shown}; check it"


def test_passwords_with_spaces() -> None:
    assert redact_address("rtsp://admin:S3C RET@10.0.0.7/live") == "rtsp://***@10.0.0.7/live"
    assert "RET" not in str(InputError("lost", "rtsp://admin:S3C RET@10.0.0.7/live", hint="check it"))


def test_pairs_outside_an_address() -> None:
    assert redact("password=S3CRET api_key=S3CRET frames=3") == "password=*** api_key=*** frames=3"


def test_long_texts_take_no_time() -> None:
    for text in ("a" * 200_000, "a=" * 100_000, "://" * 70_000, ";" * 200_000, "-" * 200_000, "x://h/" + "a_" * 99_000):
        redact(text)


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hidden")
    assert resolve_secrets("rtsp://u:${CAMERA_PASSWORD}@h/x") == "rtsp://u:hidden@h/x"
    (tmp_path / "address").write_text("rtsp://u:${CAMERA_PASSWORD}@h/y\n")
    assert resolve_secrets(f"@{tmp_path}/address") == "rtsp://u:hidden@h/y"
    assert resolve_secret(f"@{tmp_path}/address") == "rtsp://u:${CAMERA_PASSWORD}@h/y"
    assert resolve_secret("${CAMERA_PASSWORD}") == "hidden"
    assert resolve_secrets("folder/${CAMERA_PASSWORD}.mp4") == "folder/${CAMERA_PASSWORD}.mp4"
    with pytest.raises(UsageError, match="is not in the environment"):
        resolve_secrets("rtsp://${NO_SUCH_NAME}@h/x")
    for file in ("@/nowhere/address", "@a\0b", f"@{tmp_path}"):
        with pytest.raises(UsageError, match="cannot be read from its file"):
            resolve_secrets(file)


def test_a_value_of_the_environment_is_shown_by_its_name_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_KEY", "S3CRET")
    assert resolve_secrets("http://h/${STREAM_KEY}/x.m3u8") == "http://h/S3CRET/x.m3u8"
    assert redact_address("http://h/S3CRET/x.m3u8") == "http://h/${STREAM_KEY}/x.m3u8"
    assert redact("cannot read S3CRET") == "cannot read ${STREAM_KEY}"


def test_a_file_without_an_address_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("S3CRET")
    with pytest.raises(UsageError, match=r"^file holds no address: .*/password; write the whole") as caught:
        open_source(f"@{tmp_path}/password")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_mistyped"),
    [
        ("rtps://u:S3CRET@h/x", True),
        ("rtsp:/u:S3CRET@h/x", True),
        ("rtsp//u:S3CRET@h/x", True),
        ("ftp://h/x.mp4", True),
        ("u:S3CRET@h/x", True),
        ("rtsp://h/x", False),
        ("./u:p@h", False),
        ("/data/12:30@home.mp4", False),
        ("C:/clip.mp4", False),
        ("clip 12:30.mp4", False),
        ("me@home.mp4", False),
    ],
)
def test_mistyped_addresses(text: str, is_mistyped: bool) -> None:
    assert is_mistyped_address(text) == is_mistyped
    assert is_url(text) == (text == "rtsp://h/x")


@pytest.mark.parametrize(
    "text", ["rtps://u:S3CRET@h/x", "rtsp:/u:S3CRET@h/x", "u:S3CRET@h/x", "rtsp://[", "http://u:S3CRET@h/x"]
)
def test_a_mistyped_output_makes_no_folder_and_shows_no_secret(
    text: str,
    clip: Path,
    invert: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["--engine", str(invert), "--source", str(clip), "--out", text]) == UsageError.exit_code
    assert set(tmp_path.iterdir()) == before
    assert "error: " in (shown := capfd.readouterr().err)
    assert "S3CRET" not in shown
    assert "bug" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:{}/x?sig=S3CRET",
        "ftp://u:S3CRET@127.0.0.1/x",
        "u:S3CRET@h/x",
        "http://127.0.0.1:{}/${{KEY}}/x",
    ],
)
def test_no_secret_of_a_source_is_shown_even_in_a_traceback(
    text: str, invert: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "S3CRET")
    code = main(["--engine", str(invert), "--source", text.format(free_port()), "--out", "null", "--debug"])
    assert code in (3, 5)
    assert "S3CRET" not in capfd.readouterr().err
