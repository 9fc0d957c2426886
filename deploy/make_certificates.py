"""Make certificates with which scheduler, workers and client know each other, and nobody else is let in.

    python deploy/make_certificates.py --out certificates

writes an authority of your own (`ca.pem`), a certificate and key for each of `scheduler`, `worker` and `client`, and
`dask.yaml`, the setting by which Dask uses them and refuses connections without. Needs the `openssl` command.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

ROLES = "scheduler", "worker", "client"


def openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"openssl {words[0]} failed: {done.stderr.strip()}")


def make(folder: Path, days: int) -> None:
    """Everything in a new folder that only its owner can read; the authority's own key is not kept."""
    if shutil.which("openssl") is None:
        raise SystemExit(
            "the command openssl is not there. Install it: `apt-get install openssl`, `brew install openssl`."
        )
    if folder.exists():
        raise SystemExit(
            f"{folder} exists. Choose another folder, or delete it: its certificates stop working together."
        )
    os.umask(0o077)
    folder.mkdir(parents=True)
    curve = "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"
    authority, key = folder / "ca.pem", folder / "ca-key.pem"
    openssl("req", "-x509", *curve, "-keyout", key, "-out", authority, "-days", str(days), "-subj", "/CN=lrgls-ca")
    for role in ROLES:
        request, own, signed = (folder / f"{role}{end}" for end in (".csr", "-key.pem", ".pem"))
        openssl("req", "-new", *curve, "-keyout", own, "-out", request, "-subj", f"/CN=lrgls-{role}")
        by = "-CA", authority, "-CAkey", key, "-CAcreateserial"
        openssl("x509", "-req", "-in", request, *by, "-out", signed, "-days", str(days))
        request.unlink()
    key.unlink()
    authority.with_suffix(".srl").unlink(missing_ok=True)
    where = folder.resolve()
    lines = ["distributed:", "  comm:", "    require-encryption: true", "    tls:", f"      ca-file: {where}/ca.pem"]
    for role in ROLES:
        lines += [f"      {role}:", f"        cert: {where}/{role}.pem", f"        key: {where}/{role}-key.pem"]
    (folder / "dask.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("certificates"), help="a new folder (default %(default)s)")
    parser.add_argument("--days", type=int, default=365, help="how long they are good for (default %(default)s)")
    args = parser.parse_args()
    make(args.out, args.days)
    print(f"export DASK_CONFIG={args.out.resolve()}/dask.yaml")


if __name__ == "__main__":
    main()
