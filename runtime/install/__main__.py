"""`python -m runtime.install BUNDLE --to DIR`: check a bundle, build its plans, prove its engines, and activate it.

The previous version is kept for --rollback. If anything is wrong, the board keeps its current version.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from runtime.arguments import parse_size
from runtime.cli import run_cli, say
from runtime.commands import BUNDLE_WRITER, PLAN_BUILDER
from runtime.engines import PROVIDERS, Provider
from runtime.errors import EngineError, UsageError
from runtime.files import output_error, write_whole
from runtime.frame import Size
from runtime.install.bundle import Manifest, sync, unpack
from runtime.install.gate import require_faithful_plan, require_no_worse, require_same_quality
from runtime.install.service import find_obstacles, render_unit
from runtime.install.versions import Versions
from runtime.parser import CommandParser
from runtime.sidecar import Flavour, sidecar_path

SIGNERS = "allowed_signers"
"""Name of the kept signers file in the folder of versions."""


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """A bundle, the folder to install it in, and how its engines are built and checked."""

    bundle: Path
    folder: Path
    """Folder of versions; `current` in it is the version in use."""
    signers: Path | None = None
    """Allowed-signers file of OpenSSH; None uses the file that an earlier install kept, if there is one."""
    plan: Flavour | None = None
    """Library to build plans of the FP16 and INT8 engines for; None builds none."""
    plan_size: Size = (1280, 720)
    """Width and height in pixels of the frames that the plans are tuned for."""
    provider: Provider = "auto"
    """Library that runs the `.onnx` engines in the check."""
    force: bool = False
    """Install a version that is worse than the current one."""
    allow_downgrade: bool = False
    """Install a version with a lower number than the current one."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser("runtime.install", description=__doc__)
    actions = parser.add_argument_group("actions, exactly one")
    actions.add_argument(
        "bundle", type=Path, nargs="?", metavar="BUNDLE", help=f"bundle that python -m {BUNDLE_WRITER} wrote"
    )
    actions.add_argument("--rollback", action="store_true", help="return to the previous version")
    actions.add_argument("--service", action="store_true", help="print a systemd unit that streams with DIR/current")
    add = parser.add_argument_group("output").add_argument
    add("--to", type=Path, required=True, metavar="DIR", help="folder of versions; DIR/current is the one in use")
    engines = parser.add_argument_group("engine")
    engines.add_argument(
        "--plan",
        choices=get_args(Flavour),
        help="library to build plans of the FP16 and INT8 engines for (default: no plans)",
    )
    engines.add_argument(
        "--size",
        type=parse_size,
        default=InstallOptions.plan_size,
        metavar="WxH",
        help="frame size of the plans in pixels (default: 1280x720)",
    )
    engines.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="auto",
        help="library that runs the .onnx engines in the check (default: the faster)",
    )
    safety = parser.add_argument_group("safety")
    safety.add_argument(
        "--signers",
        type=Path,
        metavar="FILE",
        help="allowed signers in the format of ssh-keygen -Y; kept as "
        f"DIR/{SIGNERS}, which makes a signature mandatory from then on",
    )
    safety.add_argument("--force", action="store_true", help="install a version that is worse than the current one")
    safety.add_argument(
        "--allow-downgrade", action="store_true", help="install a version with a lower number than the current one"
    )
    safety.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    values = build_parser().parse_args(arguments)

    def command(_: object) -> int:
        if sum((values.bundle is not None, values.rollback, values.service)) != 1:
            raise UsageError("give exactly one action", hint="give a BUNDLE, --rollback or --service")
        if values.service:
            print(render_unit(values.to), end="")
            for obstacle in find_obstacles(values.to):
                say(f"warning: {obstacle}")
        elif values.rollback:
            roll_back(values.to)
        else:
            install(
                InstallOptions(
                    bundle=values.bundle,
                    folder=values.to,
                    signers=values.signers,
                    plan=values.plan,
                    plan_size=values.size,
                    provider=values.provider,
                    force=values.force,
                    allow_downgrade=values.allow_downgrade,
                )
            )
        return 0

    return run_cli(command, debug=values.debug)


def roll_back(folder: Path) -> None:
    """Activate the previous version in a folder; raises UsageError if there is no previous version."""
    versions = Versions(folder)
    with versions.lock():
        say(f"current {versions.roll_back()}")


def install(options: InstallOptions) -> None:
    """Unpack a bundle, build its plans, check its engines, and make it the current version.

    Raises a DeblurError if any of these steps fails; nothing has changed then.
    """
    versions = Versions(options.folder)
    kept_signers = options.folder / SIGNERS
    with versions.lock(), versions.create_staging_folder() as staging:
        signers = options.signers or (kept_signers if kept_signers.exists() else None)
        if signers and not os.path.isfile(signers):  # noqa: PTH113 - False for names that are too long
            raise UsageError("signers file not found", signers, hint="check the path")
        manifest, signer = unpack(options.bundle, staging, signers=signers)
        origin = f"signed by {signer}" if signer else "signature not checked"
        say(f"bundle  {manifest.name} {manifest.version}, {origin}")
        current = versions.current_manifest()
        if current and manifest.is_older_than(current) and not options.allow_downgrade:
            raise UsageError(
                f"version {manifest.version} is older than the current {current.version}",
                options.bundle,
                hint="nothing was changed; --allow-downgrade installs it, --rollback returns to the previous version",
            )
        _prove_engines(staging, manifest, versions.current, options)
        if options.signers:
            _keep_signers(options.signers, kept_signers)
        name = versions.activate(staging, manifest.folder_name)
    say(f"current {name}")


def _prove_engines(staging: Path, manifest: Manifest, current: Path, options: InstallOptions) -> None:
    """Check the engines of an unpacked bundle, and build and check its plans; raises EngineError or InputError."""
    for_plans = [name for name in manifest.engines if Path(name).stem.endswith(("_fp16", "_int8"))]
    if options.plan and not for_plans:
        raise EngineError("the bundle has no FP16 or INT8 engine for a plan", options.bundle, hint="leave out --plan")
    results = require_same_quality(staging, manifest, options.provider)
    for engine, decibels in results.items():
        say(f"gate    {engine}: {decibels:.2f} dB, as where it was made")
    if current.exists() and not options.force:
        require_no_worse(max(results.values()), current, staging, options.provider)
    if options.plan is None:
        return
    for engine in for_plans:
        plan = _build_plan(staging / engine, options.plan, options.plan_size)
        decibels = require_faithful_plan(plan, staging)
        for path in (plan, sidecar_path(plan), staging):
            sync(path)
        say(f"gate    {plan.name}: {decibels:.2f} dB, as {engine} on frames of the same size")


def _build_plan(engine: Path, flavour: Flavour, size: Size) -> Path:
    """Build a plan of an engine for this board in a subprocess and return its path; raises EngineError."""
    plan = engine.with_suffix(".plan")
    command = [sys.executable, "-m", PLAN_BUILDER, str(engine), "--out", str(plan), "--target", flavour]
    command += ["--size", f"{size[0]}x{size[1]}"]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:  # noqa: S603 - our own module
        raise EngineError("plan could not be built", engine.name, hint="see above; nothing was changed")
    return plan


def _keep_signers(signers: Path, kept: Path) -> None:
    """Copy the signers file into the folder of versions, whole or not at all; raises OutputError."""
    if signers.resolve() != kept.resolve():
        try:
            write_whole(kept, signers.read_bytes())
        except OSError as error:
            raise output_error(kept, error) from error


if __name__ == "__main__":
    sys.exit(main())
