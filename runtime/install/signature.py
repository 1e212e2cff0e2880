"""Signatures of bundles, made and verified with `ssh-keygen -Y`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.errors import InputError, UsageError

SIGNATURE = "manifest.json.sig"
"""Name of the signature of the manifest in a bundle."""
NAMESPACE = "deblur-bundle"
"""Namespace of the signatures, so that a signature made for another purpose is not accepted."""


def sign(manifest: Path, key: Path) -> Path:
    """Sign a manifest with an SSH key and return the path of the signature next to it; raises UsageError."""
    process = _run_ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest)])
    if process.returncode:
        lines = os.fsdecode(process.stderr).strip().splitlines()
        raise UsageError(f"cannot sign ({lines[-1] if lines else 'no reason given'})", key, hint="give an SSH key")
    return manifest.with_name(SIGNATURE)


def verify(content: bytes, signature: bytes | None, signers: Path, bundle: Path) -> str:
    """Verify the signature of a manifest's content and return the name of its signer.

    `signers` is an allowed-signers file of OpenSSH. Raises InputError for a missing or wrong signature.
    """
    hint = "ask the sender of the bundle; nothing was changed"
    if signature is None:
        raise InputError("bundle is not signed", bundle, hint=hint)
    with TemporaryDirectory(prefix="deblur-bundle-") as folder:
        file = Path(folder) / SIGNATURE
        file.write_bytes(signature)
        files = ["-f", str(signers), "-s", str(file)]
        search = _run_ssh_keygen(["-Y", "find-principals", *files])
        signer = os.fsdecode(search.stdout).split("\n")[0]
        command = ["-Y", "verify", *files, "-I", signer, "-n", NAMESPACE]
        if search.returncode or not signer or _run_ssh_keygen(command, content).returncode:
            raise InputError(f"bundle is not signed by anyone in {signers.name}", bundle, hint=hint)
    return signer


def _run_ssh_keygen(arguments: list[str], content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, check=False)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise UsageError("ssh-keygen is not installed", hint="apt install openssh-client") from error
