#!/bin/sh
# Write the lock files: the versions of requirements.txt with the hashes of their files, so that
# a build installs the same bytes or fails. Needs `uv` (pip install uv) and the package index.
#
#   requirements.lock   all but PyTorch
#   build.lock          setuptools, which builds what comes as source: docopt and the app
#   torch-cuda.lock     PyTorch with CUDA, and what only that needs
#   torch-cpu.lock      not written here: the CPU build stands in an index of its own, TORCH_INDEX
#                       of the Dockerfile, which shows the hashes of the files named in it
set -eu
cd "$(dirname "$0")"
versions=requirements.txt

lock() { # TARGET [options of uv]: read requirements, write them with hashes
    target=$1
    shift
    uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version 3.11 \
        "$@" - -o "$target"
}

packages() { grep -v -e '^#' -e '^torch==' "$versions"; }

packages | grep -v '^setuptools==' | lock requirements.lock --no-deps
packages | grep '^setuptools==' | lock build.lock --no-deps
others=$(packages | sed 's/==.*//; s/^/--no-emit-package /')
# shellcheck disable=SC2086 # one word an option
grep -v '^#' "$versions" | lock torch-cuda.lock --python-platform x86_64-manylinux_2_28 $others
