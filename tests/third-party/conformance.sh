#!/bin/sh
# Runs the TUF conformance suite against a client.
#
#   TUF_CONFORMANCE=FOLDER conformance.sh CLIENT [more arguments of pytest]
#
# FOLDER is a checkout of theupdateframework/tuf-conformance at commit
# eec841c186f81f2d9d8d30460c7e7deefa615f9e (after v2.4.0, 113 tests). It is not changed.
# CLIENT is an executable, by a path without spaces; a file CLIENT.xfails beside it may name tests
# that are expected to fail. Needs python3 (3.11 or newer) with venv, and `faketime`.
# PYTHON names a Python that has the packages already; otherwise a temporary environment is made.
#
# Exit codes: 0 all passed, 1 some failed, 2 wrong usage or something is missing.
set -eu

tests=113
fail() {
    echo "conformance.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] || fail "usage: TUF_CONFORMANCE=FOLDER conformance.sh CLIENT"
[ -x "$1" ] || fail "$1 is not an executable"
[ -d "${TUF_CONFORMANCE:-}/tuf_conformance" ] || fail "TUF_CONFORMANCE is not a checkout of the suite"
command -v faketime >/dev/null || fail "faketime is missing (package faketime)"
client=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
case $client in *" "*) fail "the suite splits the client's path at spaces: $client" ;; esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
if [ -z "${PYTHON:-}" ]; then
    python3 -m venv "$scratch/env"
    PYTHON=$scratch/env/bin/python
    "$PYTHON" -m pip install --quiet --disable-pip-version-check \
        'securesystemslib[crypto]==1.4.0' tuf==7.0.0 pytest==9.1.1
fi

status=0
cd "$scratch"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$TUF_CONFORMANCE "$PYTHON" -m pytest \
    -p no:cacheprovider -q -rfExX --tb=short --junit-xml="$scratch/report.xml" \
    --rootdir="$TUF_CONFORMANCE" "$TUF_CONFORMANCE/tuf_conformance" \
    --entrypoint "$client" "$@" || status=$?
[ -f "$scratch/report.xml" ] || fail "the suite did not run (pytest ended with $status)"

"$PYTHON" - "$scratch/report.xml" "$tests" <<'PY' || status=1
import sys
import xml.etree.ElementTree as tree

suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
total, failed, errors, skipped = (
    int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")
)
print(f"tests {total}, passed {total - failed - errors - skipped}, "
      f"failed {failed + errors}, expected to fail {skipped}")
if total != int(sys.argv[2]):
    print(f"note: the pinned suite has {sys.argv[2]} tests")
PY
[ "$status" -eq 0 ] || exit 1
