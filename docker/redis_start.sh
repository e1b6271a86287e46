#!/bin/sh
# Starts redis-server with a password that it makes itself at the first start.
#
#   redis_start.sh FOLDER [OPTIONS OF REDIS-SERVER]
#
# FOLDER keeps the password; containers that also have it find the URL of this Redis in it. The
# password is never an argument or a variable: others could list those.
set -eu
folder=$1
shift
umask 077
if [ ! -s "$folder/kirazuri_redis_url" ]; then
    password=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
    [ "${#password}" -eq 64 ]
    printf '%s' "$password" > "$folder/password"
    printf 'requirepass %s\n' "$password" > "$folder/redis.conf"
    printf 'redis://:%s@redis:6379/0' "$password" > "$folder/new"
    chmod 444 "$folder/new"
    # Last, and at once: where it exists, the other files are complete.
    mv "$folder/new" "$folder/kirazuri_redis_url"
    password=
fi
exec redis-server "$folder/redis.conf" "$@"
