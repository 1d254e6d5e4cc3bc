#!/usr/bin/env bash
# Install scikit-sparse (the interface to CHOLMOD) into the environment of the given python.
#
#   bash tools/install_cholmod.sh .venv/bin/python
#
# scikit-sparse has no wheels: it needs a C compiler, Python's headers and SuiteSparse's. As root on Debian or Ubuntu
# this script installs them; elsewhere it says what is missing and ends with success, since CHOLMOD is optional.
set -euo pipefail
python=${1:-python3}
packages="build-essential python3-dev libsuitesparse-dev libopenblas0"

if "$python" -c 'import sksparse.cholmod' 2>/dev/null; then
  exit 0
fi

config_header() {
  local dir
  for dir in ${SUITESPARSE_INCLUDE_DIR:-} /usr/include/suitesparse /usr/local/include/suitesparse /usr/include \
             /opt/homebrew/include/suitesparse "${CONDA_PREFIX:-/nonexistent}/include/suitesparse"; do
    if [ -f "$dir/cholmod.h" ] && [ -f "$dir/SuiteSparse_config.h" ]; then
      echo "$dir/SuiteSparse_config.h"
      return 0
    fi
  done
  return 1
}
python_header() {
  "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}
ready() { command -v cc >/dev/null && config_header >/dev/null && python_header; }

if ! ready && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq $packages >/dev/null
fi
if ! ready; then
  cat >&2 <<EOF
NOTE: CHOLMOD is not installed; the tests of the cholmod engine will be skipped.
      It needs a C compiler, Python's headers and SuiteSparse. On Debian or Ubuntu:
        sudo apt-get install $packages
      then run this again.
EOF
  exit 0
fi

# scikit-sparse 0.5 needs SuiteSparse 7.4 or newer; 0.4.16 builds against older ones.
version=$(awk '$2 == "SUITESPARSE_MAIN_VERSION" {a = $3} $2 == "SUITESPARSE_SUB_VERSION" {b = $3} END {print a * 100 + b}' \
          "$(config_header)")
requirement="scikit-sparse>=0.4.16"
if [ "$version" -lt 704 ]; then
  requirement="scikit-sparse>=0.4.16,<0.5"
fi
echo "building $requirement (SuiteSparse $((version / 100)).$((version % 100)))"
"$python" -m pip install --quiet "$requirement"
"$python" -c 'import sksparse.cholmod'
