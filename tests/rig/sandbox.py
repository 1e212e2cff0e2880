"""Commands run as another user, in a file system that is restricted as a systemd unit says.

Everything happens in a mount namespace of its own: nothing on this machine changes. It needs root, like systemd.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON = f"/opt/python/bin/{Path(sys.executable).resolve().name}"
"""This Python in the sandbox, where it is not in a home."""
_OPEN = ("/dev", "/proc", "/sys")
"""Folders that `ProtectSystem=strict` leaves as they are."""


@dataclass(frozen=True)
class Unit:
    """The settings of a unit, last value by name."""

    settings: dict[str, str]
    orders: dict[str, str]
    """Settings of the section `Unit`."""

    @classmethod
    def parse(cls, text: str) -> Unit:
        parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
        parser.optionxform = str
        parser.read_string(text)
        return cls(dict(parser["Service"]), dict(parser["Unit"]))

    def is_set(self, name: str) -> bool:
        implied = {"PrivateTmp", "NoNewPrivileges"} if self.settings.get("DynamicUser") == "yes" else set()
        return self.settings.get(name) == "yes" or name in implied

    @property
    def state_folders(self) -> list[str]:
        roots = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
        return [f"{roots[name]}/{self.settings[name]}" for name in roots if name in self.settings]

    @property
    def writable(self) -> list[str]:
        named = [path.removeprefix("-") for path in self.settings.get("ReadWritePaths", "").split()]
        return [*self.state_folders, *named]


def require_namespaces() -> None:
    """Skip the test where mount namespaces cannot be made."""
    names = ("unshare", "setpriv", "mount", "useradd")
    if missing := [name for name in names if shutil.which(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:  # noqa: S607
        pytest.skip("needs root, and the right to make mount namespaces")


def make_user(useradd: str, folder: Path) -> None:
    """Run the documented command that makes the user, on a copy of /etc in `folder`."""
    (folder / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow", "login.defs"):
        if (path := Path("/etc", name)).exists():
            shutil.copy(path, folder / "etc")
    command = shlex.split(useradd.removeprefix("sudo "))
    subprocess.run([command[0], "--prefix", str(folder), *command[1:]], check=True, capture_output=True)


def run_in_sandbox(
    unit: Unit, folder: Path, *, before: list[str], within: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run shell lines as the user of a unit: `before` as with sudo -u, `within` as the unit restricts its command.

    /mnt is `folder`, /opt/deblur the toolkit. A socket at /tmp/argus_socket stands for that of nvargus-daemon.
    """
    user = unit.settings["User"]
    groups = ",".join([user, *unit.settings["SupplementaryGroups"].split()])
    drop = f"setpriv --reuid {user} --regid {user} --groups {groups}"
    listen = "import os, socket as s, time; a = s.socket(s.AF_UNIX); a.bind('/tmp/argus_socket'); a.listen(); "
    listen += "os.chmod('/tmp/argus_socket', 0o777); time.sleep(600)"
    home = f"HOME=/var/lib/{unit.settings['StateDirectory']}"
    restrict = f"{'--no-new-privs' if unit.is_set('NoNewPrivileges') else ''} --inh-caps=-all --bounding-set=-all"
    variables = f"env -i PATH=/usr/bin:/bin PYTHONPATH=/opt/deblur:/opt/site LD_LIBRARY_PATH=/opt/python/lib {home}"
    script = [
        "set -e",
        "mount --make-rprivate /",
        f"mount --bind {folder} /mnt",
        *(f"mount --bind /mnt/etc/{name} /etc/{name}" for name in ("passwd", "group")),
        "mount -t tmpfs -o mode=755 tmpfs /opt; mkdir /opt/python /opt/site /opt/deblur",
        f"mount --bind {sys.base_prefix} /opt/python",
        f"mount --bind {sysconfig.get_path('purelib')} /opt/site",
        f"mount --bind {ROOT} /opt/deblur",
        *(f"mount -t tmpfs -o mode=755 tmpfs {path}" for path in ("/var/lib", "/var/cache")),
        "mount -t tmpfs -o mode=1777 tmpfs /tmp",
        *(f"mkdir {path}; chown {user}: {path}; mount --bind {path} {path}" for path in unit.state_folders),
        f'{PYTHON} -c "{listen}" & trap "kill $!" EXIT',
        "until test -S /tmp/argus_socket; do kill -0 $!; sleep 0.05; done",
        f"cd /opt/deblur; {drop} {variables} sh -ec {shlex.quote(chr(10).join(before))}",
        *_restrictions(unit),
        f"cd {unit.settings['WorkingDirectory']}",
        f"{drop} {restrict} {variables} {unit.settings['Environment']} sh -ec {shlex.quote(chr(10).join(within))}",
    ]
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", "\n".join(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def _restrictions(unit: Unit) -> list[str]:
    """Return the shell lines that restrict the file system as the unit says."""
    lines = []
    if unit.is_set("PrivateTmp"):
        lines.append("mount -t tmpfs -o mode=1777 tmpfs /tmp")
    if unit.is_set("ProtectHome"):
        lines += [
            f"test ! -d {path} || mount -t tmpfs -o mode=0 tmpfs {path}" for path in ("/home", "/root", "/run/user")
        ]
    if unit.settings.get("ProtectSystem") == "strict":
        writable = [path for path in unit.writable if path not in unit.state_folders]
        lines += [f"test ! -e {path} || mount --bind {path} {path}" for path in writable]
        open_paths = "|".join(f"{path}|{path}/*" for path in (*_OPEN, *unit.writable))
        lines.append(
            "while read -r _ _ _ _ target _; do case $target in "
            f"{open_paths}) ;; *) ! mountpoint -q $target || mount -o remount,bind,ro $target;; esac; "
            "done < /proc/self/mountinfo"
        )
    return lines
