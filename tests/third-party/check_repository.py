#!/usr/bin/env python3
"""Checks with python-tuf that a served repository verifies, and that altered copies of it do not.

A copy is served from memory on a free loopback port. Two kinds of attacker alter it: one without
any key, and one with the server's online keys. The second is played by a root of this script's own
that keeps the repository's keys of `targets` and replaces those of root, timestamp and snapshot:
then only the offline signatures stand between the attacker and the client.

One line a case: `ok`, `FAIL` or `skip`. A refusal counts only if it is for the expected reason.

Exit codes: 0 all as expected, 1 some case failed, 2 wrong usage.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from tuf_client import download, reason

Files = dict[str, bytes]


@contextmanager
def serving(files: Files):
    """Serves the files on a free loopback port; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(unquote(self.path).lstrip("/"))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Copy:
    """The verified files of the repository, and how to lay them out for serving."""

    def __init__(self, folder: Path, root: bytes, target: Path, target_path: str) -> None:
        self.root, self.target_path, self.target = root, target_path, target.read_bytes()
        read = lambda name: (folder / "metadata" / f"{name}.json").read_bytes()
        self.newest_root, self.timestamp, self.snapshot, self.targets = map(
            read, ("root", "timestamp", "snapshot", "targets")
        )
        self.history: Files = {
            f"metadata/{f.name}": f.read_bytes()
            for f in (folder / "metadata" / "root_history").iterdir()
        }
        delegations = Metadata[Targets].from_bytes(self.targets).signed.delegations
        roles = delegations.roles.values() if delegations and delegations.roles else []
        names = [r.name for r in roles if r.is_delegated_path(target_path)]
        if not names:
            raise ValueError(f"no delegated role may speak for {target_path}")
        self.role_name = names[0]
        self.role = read(self.role_name)
        self.signer = CryptoSigner.generate_ed25519()

    def as_served(self) -> Files:
        """The files as the repository has them."""
        return self.history | self._layout(self.timestamp, self.snapshot, self.targets, self.role)

    def own_root(self) -> bytes:
        """The repository's newest root, its online keys (and its own) replaced by this script's."""
        root = Metadata[Root].from_bytes(self.newest_root)
        root.signed.keys[self.signer.public_key.keyid] = self.signer.public_key
        for name in (Root.type, Timestamp.type, Snapshot.type):
            root.signed.roles[name] = Role([self.signer.public_key.keyid], 1)
        return self._signed(root)

    def resigned(
        self,
        targets: bytes | None = None,
        role: bytes | None = None,
        target: bytes | None = None,
        timestamp_version: int = 1000,
        snapshot_version: int = 1000,
    ) -> Files:
        """The files with changes, snapshot and timestamp signed anew to match them."""
        targets, role = targets or self.targets, role or self.role
        snapshot = Metadata[Snapshot].from_bytes(self.snapshot)
        snapshot.signed.version = snapshot_version
        for name, body in (("targets", targets), (self.role_name, role)):
            snapshot.signed.meta[f"{name}.json"] = described(version(body), body)
        snapshot_body = self._signed(snapshot)
        timestamp = Metadata[Timestamp].from_bytes(self.timestamp)
        timestamp.signed.version = timestamp_version
        timestamp.signed.snapshot_meta = described(snapshot_version, snapshot_body)
        return self._layout(self._signed(timestamp), snapshot_body, targets, role, target)

    def _signed(self, metadata: Metadata) -> bytes:
        metadata.signatures.clear()
        metadata.sign(self.signer)
        return metadata.to_bytes()

    def _layout(
        self, timestamp: bytes, snapshot: bytes, targets: bytes, role: bytes, target: bytes | None = None
    ) -> Files:
        info = json.loads(role)["signed"]["targets"][self.target_path]
        parent, slash, name = self.target_path.rpartition("/")
        prefix = next(iter(info["hashes"].values()))
        return {
            "metadata/timestamp.json": timestamp,
            f"metadata/{version(snapshot)}.snapshot.json": snapshot,
            f"metadata/{version(targets)}.targets.json": targets,
            f"metadata/{version(role)}.{self.role_name}.json": role,
            f"targets/{parent}{slash}{prefix}.{name}": target or self.target,
        }


def version(body: bytes) -> int:
    """The version that a signed file states."""
    return json.loads(body)["signed"]["version"]


def described(number: int, body: bytes) -> MetaFile:
    """What snapshot and timestamp say of a file."""
    return MetaFile(number, len(body), {"sha256": hashlib.sha256(body).hexdigest()})


def changed(body: bytes, change: Callable[[dict], None]) -> bytes:
    """A signed file with a change; the signatures stay as they are."""
    document = json.loads(body)
    change(document)
    return json.dumps(document, separators=(",", ":")).encode()


def without(body: bytes, keyids: set[str]) -> bytes:
    """A signed file without the signatures of these keys."""

    def drop(document: dict) -> None:
        document["signatures"] = [s for s in document["signatures"] if s["keyid"] not in keyids]

    return changed(body, drop)


class Cases:
    """Runs the cases, prints a line for each and counts the failures."""

    def __init__(self, target_path: str, scratch: Path) -> None:
        self.target_path, self.scratch = target_path, scratch
        self.number = self.failures = 0

    def attempt(self, files: Files, root: bytes, folder: Path) -> BaseException | None:
        """Lets the client try; says what it raised."""
        with serving(files) as url:
            try:
                download(f"{url}/metadata", f"{url}/targets", root, self.target_path, folder)
            except (RepositoryError, DownloadError, OSError, ValueError) as error:
                return error
        return None

    def line(self, ok: bool, name: str, detail: str) -> None:
        """Prints one case."""
        self.failures += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}", flush=True)

    def accepts(self, name: str, files: Files, root: bytes) -> None:
        """The client must take it."""
        error = self.attempt(files, root, self.folder())
        self.line(error is None, name, "accepted" if error is None else reason(error))

    def refuses(
        self,
        name: str,
        files: Files,
        root: bytes,
        expected: type[RepositoryError],
        seen: Files | None = None,
    ) -> None:
        """The client must refuse it for the expected reason; `seen` is what it took before."""
        folder = self.folder()
        before = self.attempt(seen, root, folder) if seen is not None else None
        if before is not None:
            self.line(False, name, f"the state before was refused: {reason(before)}")
            return
        error = self.attempt(files, root, folder)
        if error is None:
            self.line(False, name, "ACCEPTED")
        elif not isinstance(error, expected):
            self.line(False, name, f"refused, but not by {expected.__name__}: {reason(error)}")
        else:
            self.line(True, name, f"refused, {reason(error)}")

    def folder(self) -> Path:
        """An empty folder for a new client."""
        self.number += 1
        return self.scratch / str(self.number)


def altered_copies(cases: Cases, copy: Copy, expect_hybrid: bool) -> None:
    """All the cases that need no server but this script's."""
    path = copy.target_path
    evil = bytes([copy.target[0] ^ 1]) + copy.target[1:] if copy.target else b"\0"
    served, target_file = copy.as_served(), next(k for k in copy.as_served() if k.startswith("targets/"))
    role_file = f"metadata/{version(copy.role)}.{copy.role_name}.json"

    def flip(document: dict) -> None:
        hashes = document["signed"]["targets"][path]["hashes"]
        for name, value in hashes.items():
            hashes[name] = f"{int(value[0], 16) ^ 1:x}{value[1:]}"

    def point_at_evil(document: dict) -> None:
        document["signed"]["targets"][path].update(
            hashes={"sha256": hashlib.sha256(evil).hexdigest()}, length=len(evil)
        )

    def prolong(document: dict) -> None:
        document["signed"]["expires"] = "2999-01-01T00:00:00Z"

    cases.accepts("an exact copy", served, copy.root)
    for name, files, expected in (
        ("a bit of the role's hash flipped", {role_file: changed(copy.role, flip)}, LengthOrHashMismatchError),
        ("other target bytes of the same length", {target_file: evil}, LengthOrHashMismatchError),
        ("timestamp prolonged", {"metadata/timestamp.json": changed(copy.timestamp, prolong)}, UnsignedMetadataError),
    ):
        cases.refuses(f"without keys: {name}", served | files, copy.root, expected)

    own = copy.own_root()
    cases.accepts("online keys: nothing changed", copy.resigned(), own)
    cases.refuses(
        "online keys: role names other bytes",
        copy.resigned(role=changed(copy.role, point_at_evil), target=evil),
        own,
        UnsignedMetadataError,
    )
    cases.refuses("online keys: other target bytes", copy.resigned(target=evil), own, LengthOrHashMismatchError)
    cases.refuses(
        "online keys: older timestamp",
        copy.resigned(timestamp_version=999),
        own,
        BadVersionNumberError,
        seen=copy.resigned(),
    )
    cases.refuses(
        "online keys: older snapshot",
        copy.resigned(timestamp_version=1001, snapshot_version=999),
        own,
        BadVersionNumberError,
        seen=copy.resigned(),
    )
    dropped_signatures(cases, copy, own, expect_hybrid)


def dropped_signatures(cases: Cases, copy: Copy, own: bytes, expect_hybrid: bool) -> None:
    """Offline files with the signatures of one kind of key taken away."""
    root = Metadata[Root].from_bytes(copy.root)
    targets = Metadata[Targets].from_bytes(copy.targets).signed
    top = Metadata[Root].from_bytes(copy.newest_root).signed
    for kind in ("ed25519", "ml-dsa"):
        for name, body, signed, role in (
            ("root", copy.root, root.signed, Root.type),
            ("targets", copy.targets, top, Targets.type),
            (copy.role_name, copy.role, targets, copy.role_name),
        ):
            title = f"{name} without its {kind} signatures"
            keyids = signed.get_delegated_role(role).keyids
            drop = {k for k in keyids if signed.get_key(k).keytype == kind}
            if not drop:
                if expect_hybrid:
                    cases.line(False, title, f"no {kind} key in this role")
                else:
                    print(f"skip {title}: no {kind} key in this role")
            elif name == "root":
                cases.refuses(title, copy.as_served(), without(body, drop), UnsignedMetadataError)
            elif name == "targets":
                files = copy.resigned(targets=without(body, drop))
                cases.refuses(f"online keys: {title}", files, own, UnsignedMetadataError)
            else:
                files = copy.resigned(role=without(body, drop))
                cases.refuses(f"online keys: {title}", files, own, UnsignedMetadataError)


def main() -> int:
    """Reads the command line and runs everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metadata-url", required=True, help="base URL of the metadata")
    parser.add_argument("--targets-url", required=True, help="base URL of the targets")
    parser.add_argument("--root", required=True, type=Path, help="trusted root.json")
    parser.add_argument("--target-path", required=True, help="path of a target of a delegated role")
    parser.add_argument(
        "--expect-hybrid",
        action="store_true",
        help="fail unless root, targets and the role have both kinds of keys",
    )
    args = parser.parse_args()
    try:
        root = args.root.read_bytes()
    except OSError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cases = Cases(args.target_path, scratch)
        folder = cases.folder()
        try:
            target = download(args.metadata_url, args.targets_url, root, args.target_path, folder)
            copy = Copy(folder, root, target, args.target_path)
        except (RepositoryError, DownloadError, OSError, ValueError) as error:
            cases.line(False, "the served repository", reason(error))
        else:
            cases.line(True, "the served repository", "accepted")
            altered_copies(cases, copy, args.expect_hybrid)
    return 1 if cases.failures else 0


if __name__ == "__main__":
    sys.exit(main())
