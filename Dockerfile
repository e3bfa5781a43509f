# One image for all nodes of a cluster: jobs, service, `ray start`. CPU by default:
#
#   docker build -t raycommend:0.1.0 .
#   docker build -t raycommend:0.1.0-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm raycommend:0.1.0 --version
#
# BASE         an image with Python 3.11 or 3.12, the same for both stages
# TORCH_INDEX  the package index that torch alone comes from; PyPI's wheel brings CUDA along
# EXTRAS       of pyproject.toml
#
# tests/deploy/test_image.py holds this file against pyproject.toml, the Makefile and .dockerignore.

ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=lora,mlflow,redis,s3,tune
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python3", "-m", "venv", "/opt/raycommend"]
WORKDIR /build
# torch comes first and alone, so that TORCH_INDEX names its wheel and nothing else.
RUN /opt/raycommend/bin/pip install --no-deps --index-url "${TORCH_INDEX}" "torch==2.13.0"
# Then what is pinned, without the code: a change of the code leaves these layers as they are.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/raycommend/bin/pip install --constraint constraints.txt ".[${EXTRAS}]"
COPY recsys recsys
COPY ray_jobs ray_jobs
COPY serve serve
RUN ["/opt/raycommend/bin/pip", "install", "--no-deps", "--force-reinstall", "."]

FROM ${BASE}
COPY --from=build /opt/raycommend /opt/raycommend
COPY recipes /home/ray/recipes
# The number, not the name: Kubernetes' runAsNonRoot looks for one. Ray keeps its token in HOME.
RUN ["useradd", "--uid", "1000", "--create-home", "--shell", "/usr/sbin/nologin", "ray"]
RUN ["install", "--directory", "--owner=1000", "--group=1000", "/srv/raycommend", "/home/ray"]
ENV PATH=/opt/raycommend/bin:$PATH \
    HOME=/home/ray \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_AUTH_MODE=token
USER 1000:1000
WORKDIR /home/ray
ENTRYPOINT ["recsys"]
CMD ["--help"]
