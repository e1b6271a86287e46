# A worker: torch, the model's code and the checkpoint that ships.
ARG PYTHON_IMAGE=python:3.11.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# The index for torch, such as one with CPU wheels, which are a tenth of the size.
ARG TORCH_INDEX=
# Options of pip; by default it uses its default index.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/kirazuri
ENV PATH=/opt/kirazuri/bin:$PATH
COPY pyproject.toml constraints.txt requirements.lock docker/requirements.py ./
# torch alone, from one index, since each index has its own build of it.
RUN if [ -n "$TORCH_INDEX" ]; \
    then pip install --index-url "$TORCH_INDEX" torch==2.13.0; \
    else pip install -c constraints.txt torch==2.13.0; fi
RUN python requirements.py worker otel > requirements.txt \
    && pip install --require-hashes --only-binary :all: -r requirements.txt \
    # 30 MB that only compilers need.
    && find /opt/kirazuri -name 'libc2pa_c.rlib' -delete
COPY . .
RUN pip install --no-build-isolation --no-deps .

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home kirazuri && install -d -o kirazuri -g kirazuri /data
COPY --from=build /opt/kirazuri /opt/kirazuri
COPY docker/worker_health.py /opt/kirazuri/
ENV PATH=/opt/kirazuri/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp HF_HUB_OFFLINE=1 \
    KIRAZURI_DATA_DIR=/data
WORKDIR /
USER 10001:10001
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 \
    CMD ["python", "/opt/kirazuri/worker_health.py"]
CMD ["python", "-m", "worker"]
