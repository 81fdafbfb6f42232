#!/bin/sh
# Makes a checkout ready for the tests and the benchmark: Debian's packages by name, then .venv with the project in it, editable, and what
# tests it. Says nothing and is quick when all is there.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps runc, out of a user's PATH

# A Python that can make a virtual environment and compile an extension.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c '
import ensurepip, os, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

missing_packages() {
    packages=
    for program in gcc conmon crun runc git podman zsh fish strace; do
        command -v $program >/dev/null || packages="$packages $program"
    done
    command -v newuidmap >/dev/null || packages="$packages uidmap"
    command -v ip >/dev/null || packages="$packages iproute2"
    command -v ps >/dev/null || packages="$packages procps"
    [ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
    # Debian's other busybox, which is linked dynamically, does not run alone in a container.
    if ! busybox=$(command -v busybox) || case $(ldd "$busybox" 2>&1) in *'=>'*) true ;; *) false ;; esac; then
        packages="$packages busybox-static"
    fi
    is_current || [ -n "$(find_python)" ] || packages="$packages python3 python3-venv python3-dev"
    echo "${packages# }"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; }; then
        return 1
    fi
    echo "setup: installing from Debian: $1"
    log=$(mktemp)
    # An index that cannot be refreshed is no reason to stop: what it already lists may do.
    as_root apt-get update -qq -o Acquire::Retries=3 >"$log" 2>&1 </dev/null || true
    # What was interrupted, ours or another's, must be ended first; mostly there is nothing.
    as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >>"$log" 2>&1 </dev/null || true
    # shellcheck disable=SC2086 # one word a package
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 $1 \
        >>"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# What the compiled module in .venv depends on; nothing when there is no .venv that works.
fingerprint() {
    if version=$(.venv/bin/python -VV 2>/dev/null); then
        echo "$PWD $version ${PYOCI_CFLAGS-} ${PYOCI_LDFLAGS-}"
        sha256sum csrc/*.[ch] build_ext.py setup.py pyproject.toml
    fi
}

is_current() {
    [ -e pyoci/_native.abi3.so ] && [ -e pyoci/_warm ] && [ -e .venv/stamp ] && [ "$(fingerprint)" = "$(cat .venv/stamp)" ]
}

quietly() {
    "$@" >.venv/log 2>&1 </dev/null || {
        cat .venv/log >&2
        echo "setup: failed: $*" >&2
        exit 1
    }
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
    install_packages "$missing" || true
    missing=$(missing_packages)
    if [ -n "$missing" ]; then
        echo "setup: missing: $missing; install with: sudo apt-get install $missing (Python must be 3.11 or newer)" >&2
        exit 1
    fi
fi

is_current && exit
echo "setup: building pyoci and its environment, .venv"
# Asked for help, pip loads what it needs to install: it may be there in part.
if ! .venv/bin/python -m pip install --help >/dev/null 2>&1; then
    rm -rf .venv
    mkdir .venv
    quietly "$(find_python)" -m venv .venv
fi
# Taken away first: setuptools would keep a module that is newer than its sources, whatever it was built with.
rm -f .venv/stamp pyoci/_native.abi3.so pyoci/_warm
quietly .venv/bin/python -m pip install --disable-pip-version-check --editable '.[test]'
fingerprint >.venv/stamp
