#!/bin/sh
# Write the digest of the base image into all recipes, so that every build starts from the same
# bytes without an argument:
#
#   sh container/pin_base.sh [sha256:...]
#
# Without a digest it asks the registry for that of today's tag, by docker, skopeo or crane.
set -eu
cd "$(dirname "$0")/.."
name=docker.io/library/python tag=3.11-slim-bookworm

ask() {
    if command -v docker >/dev/null && docker buildx version >/dev/null 2>&1; then
        docker buildx imagetools inspect "$name:$tag" --format '{{.Manifest.Digest}}'
    elif command -v skopeo >/dev/null; then
        skopeo inspect --no-tags --format '{{.Digest}}' "docker://$name:$tag"
    elif command -v crane >/dev/null; then
        crane digest "$name:$tag"
    else
        echo "error: found no docker buildx, skopeo or crane. Cure: give the digest (sha256:...)" >&2
        return 1
    fi
}

digest=${1:-$(ask)}
printf '%s\n' "$digest" | grep -Eq '^sha256:[0-9a-f]{64}$' || {
    echo "error: digest: found '$digest', expected sha256: and 64 hexadecimal digits" >&2
    exit 2
}
old='\(@sha256:[0-9a-f]*\)\{0,1\}'
for recipe in Dockerfile container/neurodesk/build.yaml; do
    sed -i "s|python:$tag$old|python:$tag@$digest|" "$recipe"
done
# Apptainer takes a tag or a digest, not both.
sed -i "s|^\( *BASE=\)python[:@].*|\1python@$digest|" singularity.def
grep -n "$digest" Dockerfile singularity.def container/neurodesk/build.yaml
