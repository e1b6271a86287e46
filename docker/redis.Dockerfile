# Redis with a password that it makes at its first start (docker/redis_start.sh).
ARG REDIS_IMAGE=redis:7.4.11-alpine3.21

FROM ${REDIS_IMAGE}
# A new volume takes the owner of this folder.
RUN install -d -o redis -g redis -m 755 /run/kirazuri
COPY --chmod=755 docker/redis_start.sh /usr/local/bin/redis-start
USER 999:1000
EXPOSE 6379
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=5 \
    CMD ["sh", "-c", "REDISCLI_AUTH=$(cat /run/kirazuri/password) redis-cli -e ping"]
CMD ["redis-start", "/run/kirazuri"]
