#!/bin/sh
# Builds the examples in JavaScript and Python into the folder $1 and puts the second runtime beside them, with toolchains
# from npm and PyPI that are kept in the user's cache. A component that is newer than its sources is left alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/eventflow/policy-examples
wit=$here/../wit

# need COMMAND PACKAGE...: installs the distribution's packages if the command fails and we are root.
need() {
    test_of_it=$1
    shift
    sh -c "$test_of_it" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ]; then
        apt-get install --yes --no-install-recommends "$@" >&2
    else
        echo "missing: apt-get install $*" >&2
        exit 1
    fi
}

# tools NAME LOCK: prints the folder of a toolchain, which goes by the digest of the file that pins its versions.
tools() {
    echo "$cache/$1-$(sha256sum "$2" | cut -c1-16)"
}

# keep FOLDER: puts FOLDER.new, which is complete, in its place. Whoever else was faster has the same.
keep() {
    mv -T "$1.new" "$1" 2>/dev/null || rm -rf "$1.new"
}

# node_tools FOLDER LOCK: installs what a lock file pins.
node_tools() {
    need "node --version" nodejs
    need "npm --version" npm
    [ -d "$1" ] && return
    rm -rf "$1.new"
    mkdir -p "$1.new"
    cp "$2" "$(dirname "$2")/package.json" "$1.new/"
    npm ci --prefix "$1.new" --no-fund --no-audit --silent >&2
    keep "$1"
}

# fresh COMPONENT SOURCE...: whether the component is newer than all of its sources.
fresh() {
    component=$1
    shift
    [ -e "$component" ] && [ -z "$(find "$@" "$wit" -type f -newer "$component")" ]
}

if ! fresh "$out/replica-limit-js.wasm" "$here/replica-limit-js"; then
    js=$(tools js "$here/replica-limit-js/package-lock.json")
    node_tools "$js" "$here/replica-limit-js/package-lock.json"
    cp "$here/replica-limit-js/"*.js "$js/"
    node "$js/build.js" "$out/replica-limit-js.wasm" "$wit"
fi

if ! fresh "$out/replica-limit-py.wasm" "$here/replica-limit-py"; then
    need "python3 -c 'import venv, ensurepip'" python3 python3-venv
    py=$(tools py "$here/replica-limit-py/requirements.txt")
    if [ ! -d "$py" ]; then
        # Not moved once made: a virtual environment has its own path in it.
        python3 -m venv "$py.new"
        "$py.new/bin/pip" install --quiet --target "$py.new/packages" --requirement "$here/replica-limit-py/requirements.txt" >&2
        keep "$py"
    fi
    # On a copy, because it leaves compiled Python beside the source. Stubs in place of WASI: a policy is given none.
    rm -rf "$py/source"
    cp -r "$here/replica-limit-py" "$py/source"
    (cd "$py/source" && PYTHONPATH="$py/packages" python3 "$py/packages/bin/componentize-py" \
        --wit-path "$wit" --world pure-admission-policy componentize --stub-wasi --output "$out/replica-limit-py.wasm" policy)
fi

second=$(tools second-runtime "$here/second-runtime/package-lock.json")
node_tools "$second" "$here/second-runtime/package-lock.json"
cp "$here/second-runtime/judge.js" "$second/"
ln -sfn "$second" "$out/second-runtime"
