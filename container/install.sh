#!/bin/sh
# Install the app with all that it needs into one folder. The Dockerfile and singularity.def
# both call this, so that the two images hold the same software.
#
#   sh container/install.sh packages PREFIX     the packages of requirements.txt, at their versions
#   sh container/install.sh app PREFIX SOURCE   the app itself, and the check that nothing is missing
#
# TORCH_INDEX names an index with the build of PyTorch that is wanted; empty: pip's own.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
step=$1
prefix=$2

install() {
    python3 -m pip --python "$prefix/bin/python" install --quiet --no-cache-dir --no-compile \
        --disable-pip-version-check --root-user-action=ignore "$@"
}

case $step in
packages)
    python3 -m venv --without-pip "$prefix"
    install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r "$here/requirements.txt"
    site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # What is only needed to test these packages, or to compile against them.
    rm -rf "$site/torch/include" "$site/torch/test" "$site/torch/share/cmake"
    find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
    find "$site" -type d -name tests -prune -exec rm -rf {} +
    find "$site" -name '*.pyi' -delete
    ;;
app)
    install --no-deps "$3"
    python3 -m pip --python "$prefix/bin/python" --disable-pip-version-check check
    # Nothing can be written at run time, and copies may change the time stamps by which
    # Python would otherwise judge that its compiled files are old. A few files of the packages
    # are for newer versions of Python; those can't be compiled, and are never imported.
    "$prefix/bin/python" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$prefix/lib" ||
        true
    "$prefix/bin/python" -c 'import torch, SimpleITK, asl_bids_app.workflows.run'
    ;;
*)
    echo "usage: $0 packages|app PREFIX [SOURCE]" >&2
    exit 2
    ;;
esac
