#!/bin/sh
# Builds the examples in JavaScript and Python into the folder $1, with toolchains from npm and PyPI that are kept in the
# user's cache. A component that is newer than its sources is left alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/eventflow/policy-examples
wit=$here/../wit

# need PROGRAM PACKAGE...: installs the distribution's packages if the program is missing and we are root.
need() {
    program=$1
    shift
    command -v "$program" >/dev/null && return
    if [ "$(id -u)" = 0 ]; then
        apt-get install --yes --no-install-recommends "$@" >&2
    else
        echo "$program is missing: apt-get install $*" >&2
        exit 1
    fi
}

# fresh COMPONENT SOURCE...: whether the component is newer than all of its sources.
fresh() {
    component=$1
    shift
    [ -e "$component" ] && [ -z "$(find "$@" "$wit" -type f -newer "$component")" ]
}

if ! fresh "$out/replica-limit-js.wasm" "$here/replica-limit-js"; then
    need node nodejs
    need npm npm
    mkdir -p "$tools/js"
    cp "$here/replica-limit-js/"* "$tools/js/"
    [ -d "$tools/js/node_modules" ] || npm install --prefix "$tools/js" --no-fund --no-audit --silent >&2
    node "$tools/js/build.js" "$out/replica-limit-js.wasm" "$wit"
fi

if ! fresh "$out/replica-limit-py.wasm" "$here/replica-limit-py"; then
    need python3 python3 python3-venv
    componentize=$tools/py/bin/componentize-py
    if [ ! -x "$componentize" ]; then
        python3 -m venv "$tools/py"
        "$tools/py/bin/pip" install --quiet --requirement "$here/replica-limit-py/requirements.txt" >&2
    fi
    # Stubs in place of WASI: a policy is given none.
    (cd "$here/replica-limit-py" && PYTHONDONTWRITEBYTECODE=1 "$componentize" --wit-path "$wit" --world pure-admission-policy \
        componentize --stub-wasi --output "$out/replica-limit-py.wasm" policy)
fi
