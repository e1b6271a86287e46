# The HTTP API and the command line for its keys, without torch and weights.
ARG PYTHON_IMAGE=python:3.11.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# Options of pip; by default it uses its default index.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/kirazuri
ENV PATH=/opt/kirazuri/bin:$PATH
COPY pyproject.toml requirements.lock docker/requirements.py ./
RUN python requirements.py api cli otel > requirements.txt \
    && pip install --require-hashes --only-binary :all: -r requirements.txt \
    # 30 MB that only compilers need.
    && find /opt/kirazuri -name 'libc2pa_c.rlib' -delete
COPY . .
RUN find model/checkpoints -name '*.safetensors' -delete && pip install --no-build-isolation --no-deps .
# Keeps the policy's spellings beside the compiled modules, where the service cannot write.
RUN python -I -c "from model.policy.policy import load_policy; load_policy()"

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home kirazuri && install -d -o kirazuri -g kirazuri /data
COPY --from=build /opt/kirazuri /opt/kirazuri
ENV PATH=/opt/kirazuri/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp KIRAZURI_DATA_DIR=/data
WORKDIR /
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000", "--stop-seconds", "10"]
