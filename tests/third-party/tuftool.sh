#!/bin/sh
# Downloads one target with tuftool, the command line of the Rust client `tough`.
#
#   tuftool.sh METADATA_URL TARGETS_URL ROOT TARGET_PATH FOLDER
#
# FOLDER must not exist; the target is written to FOLDER/TARGET_PATH. tuftool requests the target at
# TARGETS_URL/<sha256>.TARGET_PATH: the hash stands before the whole path. It loads every delegated
# role and refuses a repository whose root or targets name a key of a kind it does not know, so
# only repositories with Ed25519 keys alone work.
#
# TUFTOOL names the program; otherwise it is looked up in PATH. There is no prebuilt one in a
# package registry:  cargo install tuftool --version 0.17.0 --locked
#
# Exit codes: 0 verified and downloaded, 1 refused, 2 wrong usage or no tuftool.
set -eu

fail() {
    echo "tuftool.sh: $1" >&2
    exit 2
}

[ $# -eq 5 ] || fail "usage: tuftool.sh METADATA_URL TARGETS_URL ROOT TARGET_PATH FOLDER"
tuftool=${TUFTOOL:-tuftool}
command -v "$tuftool" >/dev/null || fail "no $tuftool: cargo install tuftool --version 0.17.0 --locked"
[ -f "$3" ] || fail "there is no $3"
[ ! -e "$5" ] || fail "$5 exists already"

"$tuftool" download --root "$3" --metadata-url "$1" --targets-url "$2" --target-name "$4" "$5" || exit 1
[ -f "$5/$4" ] || {
    echo "tuftool.sh: tuftool ended well, but $5/$4 is missing" >&2
    exit 1
}
