#!/usr/bin/env python3
"""Downloads one target from a TUF repository with python-tuf, unchanged and with its defaults.

The first root is the trust anchor at every start. What was verified is kept in DIR/metadata and
DIR/targets, so that a later run with the same DIR notices when the repository goes back.

Exit codes: 0 verified and downloaded, 1 refused (one line on standard error), 2 wrong usage.
"""

import argparse
import sys
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater


class NoSuchTarget(RepositoryError):
    """No role that may speak for the path lists it."""


def download(metadata_url: str, targets_url: str, root: bytes, target_path: str, folder: Path) -> Path:
    """Refreshes, finds the target and downloads it; raises what python-tuf raises."""
    metadata, targets = folder / "metadata", folder / "targets"
    metadata.mkdir(parents=True, exist_ok=True)
    targets.mkdir(parents=True, exist_ok=True)
    updater = Updater(str(metadata), metadata_url, str(targets), targets_url, bootstrap=root)
    updater.refresh()
    info = updater.get_targetinfo(target_path)
    if info is None:
        raise NoSuchTarget(f"the repository lists no target {target_path}")
    return Path(updater.find_cached_target(info) or updater.download_target(info))


def reason(error: BaseException) -> str:
    """The error and its first cause, in one line."""
    text = f"{type(error).__name__}: {error}"
    if error.__cause__ is not None:
        text += f" ({error.__cause__})"
    return " ".join(text.split())


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metadata-url", required=True, help="base URL of the metadata")
    parser.add_argument("--targets-url", required=True, help="base URL of the targets")
    parser.add_argument("--root", required=True, type=Path, help="trusted root.json")
    parser.add_argument("--target-path", required=True, help="path of the target in the metadata")
    parser.add_argument("--dir", required=True, type=Path, help="folder for metadata and targets")
    args = parser.parse_args()
    try:
        root = args.root.read_bytes()
        path = download(args.metadata_url, args.targets_url, root, args.target_path, args.dir)
    except (RepositoryError, DownloadError, OSError, ValueError) as error:
        print(f"refused: {reason(error)}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
