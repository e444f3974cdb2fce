# idal in a container; docs/install.md says how to run it.
#
#   docker build --tag idal .                                             for a CUDA card; runs without one too
#   docker build --tag idal --build-arg TORCH_WHEELS=ADDRESS .            for processors alone, some GB smaller
#   docker build --tag idal --build-arg EXTRAS=cluster,postgres .         for workers, and records in Postgres
#
# ADDRESS is that of the wheels for CPU, as the installation page of PyTorch names it.
FROM python:3.11-slim

ARG TORCH_WHEELS=""
ARG EXTRAS=""

# the compiler of PyTorch (compute.compile) needs one of C
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /idal
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY idal_assets idal_assets
RUN python -m pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_WHEELS:+--extra-index-url "$TORCH_WHEELS"} ".${EXTRAS:+[$EXTRAS]}"

# whoever runs it: caches go where anybody may write, results into the folder that is mounted there
ENV HOME=/tmp IDAL_DATA_DIR=/study
WORKDIR /study
ENTRYPOINT ["idal"]
