"""The status page for other machines: a token, its cookie, and TLS, over real sockets."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtime.errors import UsageError
from runtime.monitor import Access, Address, StatusServer, open_access
from runtime.options import RunOptions

LOOPBACK, EVERYWHERE = Address("127.0.0.1", 0), Address("0.0.0.0", 0)  # noqa: S104 - connected to from here only
TOKEN = "a-token-of-the-tests"  # noqa: S105 - not a real one


@pytest.fixture
def server() -> Iterator[StatusServer]:
    with closing(StatusServer(EVERYWHERE, Access(TOKEN))) as server:
        yield server


def send(
    server: StatusServer, path: str, body: str | None = None, *, tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a GET, or a POST with a body, and return status, headers and body of the response."""
    port = urlsplit(server.url).port
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_without_the_token_only_the_status_of_health_is_answered(server: StatusServer) -> None:
    for path in ("/", "/stats.json", "/metrics", "/pair/0.jpg", "/nothing", "/?token=wrong"):
        status, headers, body = send(server, path)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert TOKEN.encode() not in body
    assert b"<form" in send(server, "/")[2]
    assert send(server, "/healthz/live")[::2] == (200, b'{"live": true, "ready": false}')
    assert send(server, "/healthz/ready")[0] == 503


def test_the_token_opens_every_path(server: StatusServer) -> None:
    for path in ("/", "/stats.json", "/metrics", "/healthz/live"):
        assert send(server, path, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert b"streams" in send(server, "/healthz", Authorization=f"bearer {TOKEN}")[2]
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer \xff", TOKEN):
        assert send(server, "/metrics", Authorization=wrong)[0] == 401


@pytest.mark.parametrize("way", ["form", "link"])
def test_a_browser_gets_a_cookie_that_does_not_hold_the_token(server: StatusServer, way: str) -> None:
    form = f"token={TOKEN}"
    status, headers, _ = send(server, "/login", form) if way == "form" else send(server, f"/?{form}")
    assert (status, headers["Location"]) == (303, "/")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} < set(attributes)
    assert TOKEN not in cookie
    assert send(server, "/stats.json", Cookie=f"other=1; {cookie}")[0] == 200
    for wrong in (f"{cookie[:-1]}x", cookie.split("=")[0], f"x{cookie}", "\xff;;=", "a=b" * 2000):
        assert send(server, "/stats.json", Cookie=wrong)[0] == 401


def test_wrong_forms_are_refused(server: StatusServer) -> None:
    assert send(server, "/login", "token=wrong")[0] == 401
    assert send(server, "/login", "")[0] == 401
    assert send(server, "/login", "%ff" * 100)[0] == 401
    assert send(server, "/login", "a" * 99_000)[0] == 413
    assert send(server, "/stats.json", f"token={TOKEN}")[0] == 405


def test_a_server_for_other_machines_makes_a_token_if_it_gets_none() -> None:
    with closing(StatusServer(EVERYWHERE)) as server, closing(StatusServer(EVERYWHERE)) as other:
        path = server.login_url.removeprefix(server.url)
        assert len(path) > len("?token=") + 20
        assert path != other.login_url.removeprefix(other.url)
        assert send(server, "/stats.json")[0] == 401
        assert send(server, f"/{path}")[0] == 303


def test_loopback_needs_no_token_unless_one_is_given() -> None:
    with closing(StatusServer(LOOPBACK)) as server:
        assert server.login_url == server.url
        assert send(server, "/stats.json")[0] == 200
        assert send(server, "/login", "token=x")[0] == 405
    with closing(StatusServer(LOOPBACK, Access(TOKEN))) as server:
        assert server.login_url == server.url
        assert send(server, "/stats.json")[0] == 401
        assert send(server, "/", Host="evil.example", Authorization=f"Bearer {TOKEN}")[0] == 403
        assert send(server, "/login", f"token={TOKEN}", Host="evil.example")[0] == 403


def test_tokens_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_TOKEN", TOKEN)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for text in ("${PAGE_TOKEN}", f"@{tmp_path}/token", TOKEN):
        access = open_access(text, None, None)
        assert access.accepts(TOKEN)
        assert TOKEN not in repr(access)
    assert TOKEN not in repr(RunOptions(serve=LOOPBACK, serve_token=TOKEN))
    for wrong in ("", "short", "with a space in between", "ümlautümlautümlaut"):
        with pytest.raises(UsageError, match="16 or more ASCII") as caught:
            open_access(wrong, None, None)
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read from its file: /nowhere"):
        open_access("@/nowhere", None, None)
    with pytest.raises(UsageError, match="page that is not served"):
        RunOptions(serve_token=TOKEN)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, made as docs/reliability.md says."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=board "
        "-addext subjectAltName=IP:127.0.0.1 -keyout board.key -out board.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "board.pem", folder / "board.key"


def test_tls(certificate: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    with closing(StatusServer(EVERYWHERE, open_access(TOKEN, *certificate))) as server:
        assert server.url.startswith("https://")
        assert send(server, "/healthz/live", tls=trusted)[0] == 200
        status, headers, _ = send(server, "/login", f"token={TOKEN}", tls=trusted)
        assert (status, headers["Set-Cookie"].split("; ")[-1]) == (303, "Secure")
        assert send(server, "/metrics", tls=trusted, Authorization=f"Bearer {TOKEN}")[0] == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            send(server, "/healthz/live")  # without TLS
        assert send(server, "/healthz/live", tls=trusted)[0] == 200


def test_unusable_certificates(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    (tmp_path / "junk").write_text("junk")
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", key, "-out", tmp_path / "locked"],  # noqa: S607
        check=True,
        capture_output=True,
    )
    for arguments in ((tmp_path / "none", key), (chain, tmp_path / "none"), (chain, None), (tmp_path / "junk", key)):
        with pytest.raises(UsageError, match="PEM"):
            open_access(None, *arguments)
    with pytest.raises(UsageError, match="without a password"):
        open_access(None, chain, tmp_path / "locked")
    with pytest.raises(UsageError, match="give its certificate"):
        open_access(None, None, key)
    both = tmp_path / "both"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    assert open_access(None, both, None).tls
