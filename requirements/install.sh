# sh requirements/install.sh run|dev: makes .venv with $PYTHON and installs requirements/run.txt or dev.txt, nothing
# else. Packages come from the registry that pip is set up for; the hashes in the lock decide what is accepted.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "kubeactor: $1" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null 2>&1 ||
    fail "$PYTHON is missing: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$PYTHON" --version) is too old, 3.11 is the oldest: make PYTHON=python3.12"
"$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$PYTHON has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)"

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear .venv
fi
echo "installing requirements/$1.txt"
pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install "$@"
}
pip --require-hashes -r "requirements/$1.txt"
pip --no-deps --no-build-isolation -e .
touch .venv/run.stamp ".venv/$1.stamp" # all of run.txt is in dev.txt
