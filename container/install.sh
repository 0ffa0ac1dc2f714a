#!/bin/sh
# Install the app with all that it needs into one folder. The Dockerfile, singularity.def and the
# recipe for Neurodesk all call this, so that the images hold the same software.
#
#   sh container/install.sh packages PREFIX     the packages of the lock files, by their hashes
#   sh container/install.sh app PREFIX SOURCE   the app (a checkout or a wheel), and the check that
#                                               nothing is missing
#
# From the environment:
#   TORCH               cpu (default) or cuda: which build of PyTorch
#   TORCH_INDEX         an index with PyTorch for the CPU; empty: pip's own
#   SOURCE_DATE_EPOCH   the time of all files, seconds since 1970
# Two builds make the same files, bit by bit.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
step=$1
prefix=$2
torch=${TORCH:-cpu}
# Python's own order of sets would otherwise differ from run to run, in compiled files too.
export PYTHONHASHSEED=0 SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}"

install() {
    python3 -m pip --python "$prefix/bin/python" install --quiet --no-cache-dir --no-compile \
        --no-deps --disable-pip-version-check --root-user-action=ignore "$@"
}

same_time() {
    find "$prefix" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

case $step in
packages)
    [ -f "$here/torch-$torch.lock" ] || { echo "error: TORCH=$torch: expected cpu or cuda" >&2; exit 2; }
    python3 -m venv --without-pip "$prefix"
    install --require-hashes -r "$here/build.lock"
    index=''
    [ "$torch" != cpu ] || index=${TORCH_INDEX:-}
    install --require-hashes ${index:+--index-url "$index"} -r "$here/torch-$torch.lock"
    # Only docopt comes as source; it is built by the setuptools above.
    install --require-hashes --no-build-isolation --use-pep517 --only-binary :all: \
        --no-binary docopt \
        -r "$here/requirements.lock"
    site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # What is only needed to test these packages, or to compile against them.
    rm -rf "$site/torch/include" "$site/torch/test" "$site/torch/share/cmake"
    find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
    find "$site" -type d -name tests -prune -exec rm -rf {} +
    find "$site" -name '*.pyi' -delete
    same_time
    ;;
app)
    install --no-build-isolation "$3"
    python3 -m pip --python "$prefix/bin/python" --disable-pip-version-check check
    # Nothing can be written at run time, and copies may change the time stamps by which
    # Python would otherwise judge that its compiled files are old. A few files of the packages
    # are for newer versions of Python; those can't be compiled, and are never imported.
    # One after the other: what else a process has compiled shows in the files that it writes.
    "$prefix/bin/python" -m compileall -qq -j 1 --invalidation-mode unchecked-hash "$prefix/lib" ||
        true
    "$prefix/bin/python" -c 'import torch, SimpleITK, asl_bids_app.workflows.participant_level'
    same_time
    ;;
*)
    echo "usage: $0 packages|app PREFIX [SOURCE]" >&2
    exit 2
    ;;
esac
