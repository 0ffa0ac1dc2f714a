# An image with asl-app, its networks and its atlas. It needs no network, no home folder and no
# writable image at run time, and runs as any user.
#
#   docker build -t asl-app:0.1.0 .                             for the CPU
#   docker build -t asl-app:0.1.0-cuda --build-arg TORCH=cuda . PyTorch with CUDA
#   docker run --rm -v /my/bids:/bids_dir:ro -v /my/out:/out -v /my/work:/work \
#       -u "$(id -u):$(id -g)" asl-app:0.1.0 /bids_dir /out participant -w /work

# For a build that can be repeated to the bit the base image needs its digest, which
# `sh container/pin_base.sh` looks up and writes here, or give it (name@sha256:...); the time of
# the commit is SOURCE_DATE_EPOCH. docs/hpc.md has the whole command.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG SOURCE_DATE_EPOCH=1767225600

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS build
# cpu or cuda, and the index with the build for the CPU (empty: pip's own).
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG SOURCE_DATE_EPOCH
WORKDIR /src
# Packages change less often than the app: this layer is kept when only the app changes.
COPY container /src/container
RUN sh container/install.sh packages /opt/asl-app
COPY . /src
RUN sh container/install.sh app /opt/asl-app /src

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG IMAGE_TAG=asl-app:${VERSION}
LABEL org.opencontainers.image.title="asl-app" \
      org.opencontainers.image.description="CBF and ATT maps with error bars from multi-delay ASL in BIDS" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/asl-app /opt/asl-app
# A home and caches that exist for every user. ASL_APP_CONTAINER_TAG goes into the
# dataset_description.json of the derivatives. The NVIDIA lines do nothing without a GPU.
ENV PATH=/opt/asl-app/bin:${PATH} \
    LANG=C.UTF-8 \
    HOME=/tmp \
    USER=asl \
    LOGNAME=asl \
    MPLCONFIGDIR=/tmp/asl-app/matplotlib \
    MPLBACKEND=Agg \
    NIPYPE_CONFIG_DIR=/tmp/asl-app/nipype \
    XDG_CACHE_HOME=/tmp/asl-app/cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/asl-app/torchinductor \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NO_ET=1 \
    NIPYPE_NO_ET=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ASL_APP_CONTAINER_TAG=${IMAGE_TAG}
# The conventional mount points. The build fails here if the label would lie about the version.
RUN mkdir -p /bids_dir /out /work \
 && chmod 777 /out /work \
 && test "$(asl-app --version)" = "asl-app ${VERSION}"
USER 1000:1000
# Without -w the work folder is ./work, that is /work here: mount it to keep it.
WORKDIR /
ENTRYPOINT ["asl-app"]
CMD ["--help"]
