"""Makes a picture for every row of a CSV file, and goes on where it stopped, also by Ctrl-C.

    python examples/csv_batch.py prompts.csv pictures

The columns are those of `POST /generate` (`prompt`, `seed`, `resolution` …); `name` is the name of
the file. Empty cells are left out. KIRAZURI_URL and KIRAZURI_API_KEY name the service and the key.

A row whose picture exists is skipped. A row that was submitted before a crash is not made twice:
its `Idempotency-Key` comes from its content, so the service answers with the same job.
"""

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

URL = os.environ.get("KIRAZURI_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("KIRAZURI_API_KEY", "")
AT_ONCE = 4
"""Enough to fill a batch; more would only wait in the queue."""

NUMBERS = {"steps": int, "seed": int, "cfg_scale": float, "strength": float}


def call(path: str, body: dict[str, Any] | None = None, **headers: str) -> bytes:
    """The response of the service. Waits as long as it asks to, if it is full or starting."""
    data = None if body is None else json.dumps(body).encode()
    headers["Content-Type"] = "application/json"
    request = Request(urljoin(URL, path), data, headers)
    if KEY:  # a picture may be in a bucket, where the key does not belong
        request.add_unredirected_header("Authorization", f"Bearer {KEY}")
    while True:
        try:
            with urlopen(request, timeout=120) as response:
                return bytes(response.read())
        except HTTPError as error:
            with error:
                problem = error.read().decode(errors="replace")
                wait = error.headers.get("Retry-After", "")
            if error.code not in (429, 503) or not wait.isdigit():
                raise RuntimeError(problem) from None
            time.sleep(int(wait))


def make(fields: dict[str, Any]) -> dict[str, Any]:
    """The finished job of these fields."""
    key = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    headers = {"Prefer": "wait=60", "Idempotency-Key": key}
    job: dict[str, Any] = json.loads(call("/generate", fields, **headers))
    while job["finished_at"] is None:  # longer than a minute: the same call waits again
        job = json.loads(call("/generate", fields, **headers))
    return job


def read_row(row: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The name of the file, and the fields of the request."""
    fields: dict[str, Any] = {name: text for name, text in row.items() if text and name != "name"}
    for name, number in NUMBERS.items():
        if name in fields:
            fields[name] = number(fields[name])
    return row["name"], fields


def make_row(row: dict[str, str], folder: Path) -> str:
    """Make one picture; what became of it."""
    name, fields = read_row(row)
    picture = folder / f"{name}.{fields.get('image_format', 'png')}"
    if picture.exists():
        return f"{name}: exists"
    job = make(fields)
    if job["status"] != "succeeded":
        raise RuntimeError(f"{job['status']}: {job['error']}")
    partial = picture.with_suffix(".part")  # a picture that exists is complete
    partial.write_bytes(call(job["images"][0]["url"]))
    partial.rename(picture)
    return f"{name}: seed {job['request']['seed']}"


def main() -> None:
    """Make all rows; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description="Make a picture for every row of a CSV file.")
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with options.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = [pool.submit(make_row, row, options.folder) for row in rows]
        try:
            for row, future in zip(rows, made, strict=True):
                try:
                    print(future.result(), flush=True)
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    failed += 1
                    print(f"{row.get('name')}: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # ends when the pictures in the making are there
            sys.exit(130)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
