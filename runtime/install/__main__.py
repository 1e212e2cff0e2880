"""`python -m runtime.install BUNDLE --to DIR`: checks a bundle, builds its plans, proves it, and swaps it in.

The version before is kept for --rollback. Whatever is wrong, the board keeps what it had.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from runtime.arguments import parse_size
from runtime.cli import report_error, say
from runtime.engines import PROVIDERS
from runtime.errors import EngineError, UsageError
from runtime.files import unwritable
from runtime.install.bundle import unpack
from runtime.install.gate import require_good, require_no_worse
from runtime.install.versions import Versions
from runtime.sidecar import Flavour

SIGNERS = "allowed_signers"
SERVICE = Path(__file__).with_name("deblur.service")
_PLANS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime.install", description=__doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", metavar="BUNDLE", help="what python -m export.bundle wrote")
    add("--to", type=Path, required=True, metavar="DIR", help="folder of versions; DIR/current is the one in use")
    add(
        "--signers",
        type=Path,
        metavar="FILE",
        help=f"allowed signers, as ssh-keygen -Y has them; kept as DIR/{SIGNERS} and asked for from then on",
    )
    add("--plan", choices=_PLANS, help="build plans of the FP16 and INT8 engines, which then serve")
    add(
        "--size",
        type=parse_size,
        default=(1280, 720),
        metavar="WxH",
        help="frame size of the plans (default: 1280x720)",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="what runs the .onnx engines in the gate")
    add("--force", action="store_true", help="install a version that is worse than the current one")
    add("--rollback", action="store_true", help="go back to the version before")
    add("--service", action="store_true", help="print a systemd unit that streams with DIR/current")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    try:
        run(options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line
        return report_error(error, debug=options.debug)
    return 0


def run(options: argparse.Namespace) -> None:
    if sum((options.bundle is not None, options.rollback, options.service)) != 1:
        raise UsageError("nothing to do, or too much", hint="give a BUNDLE, --rollback or --service")
    versions = Versions(options.to)
    if options.service:
        print(service(options.to), end="")
        return
    with versions.locked():
        if options.rollback:
            say(f"current {versions.roll_back()}")
        else:
            install(options, versions)


def install(options: argparse.Namespace, versions: Versions) -> None:
    """Unpack, build, prove, swap in; raises what is wrong, and then nothing has changed."""
    kept_signers = versions.folder / SIGNERS
    signers = options.signers or (kept_signers if kept_signers.exists() else None)
    if signers and not signers.is_file():
        raise UsageError("no such file of signers", signers, hint="check the path")
    with versions.incoming() as incoming:
        manifest, signer = unpack(options.bundle, incoming, signers=signers)
        author = f"signed by {signer}" if signer else "signature not asked for"
        say(f"bundle  {manifest.name} {manifest.version}, {author}")
        engines = [incoming / name for name in manifest.engines]
        if options.plan:
            engines = [_plan(engine, options) for engine in engines if engine.stem.endswith(("_fp16", "_int8"))]
        if not engines:
            raise EngineError("no engine in the bundle is for this board", options.bundle, hint="leave out --plan")
        found = require_good(incoming, manifest, engines, options.provider)
        for name, decibels in found.items():
            say(f"gate    {name}: {decibels:.2f} dB, as where it was made")
        if versions.current.exists() and not options.force:
            require_no_worse(max(found.values()), versions.current, incoming, options.provider)
        if options.signers:
            _keep(options.signers, kept_signers)
        versions.put(incoming, manifest.folder)
    say(f"current {manifest.folder}")


def _plan(engine: Path, options: argparse.Namespace) -> Path:
    """Build a plan of an engine on this board, by the builder's own command."""
    plan = engine.with_suffix(".plan")
    command = [sys.executable, "-m", "export.plan", str(engine), "--out", str(plan), "--target", options.plan]
    command += ["--size", "{}x{}".format(*options.size)]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:  # noqa: S603 - our own
        raise EngineError("plan could not be built", engine.name, hint="see above; nothing was changed")
    return plan


def _keep(signers: Path, kept: Path) -> None:
    if signers.resolve() == kept.resolve():
        return
    new = kept.with_name(f".{kept.name}.new")
    try:
        shutil.copyfile(signers, new)
        new.rename(kept)
    except OSError as error:
        raise unwritable(kept, error) from error


def service(folder: Path) -> str:
    """A systemd unit for this environment and folder."""
    text = SERVICE.read_text().replace("@PYTHON@", sys.executable)
    return text.replace("@ENGINES@", str(folder.resolve() / "current"))


if __name__ == "__main__":
    sys.exit(main())
