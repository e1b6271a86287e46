"""Runs a file of prompts: some jobs at a time, one result a prompt, continued where it ended."""

import contextlib
import hashlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from cli.client.connection import send_for_json
from cli.client.errors import ClientError, NotFound, Refused, ServiceAway, WrongUsage
from cli.client.fields import require_json
from cli.client.images import Target, save_images
from cli.client.jobs import cancel_quietly, follow, job_path, submit, succeeded
from cli.output import note

RESULTS = "results.jsonl"
"""The file of results in the folder of the images."""

_PAUSE_SECONDS = 2.0
"""Before a busy service is asked again, unless it says how long to wait."""


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One line of the file: its number, its request, and what identifies it in the results."""

    number: int
    body: Mapping[str, Any]
    digest: str


def read_prompts(lines: Iterable[str], fields: Mapping[str, Any]) -> list[PromptLine]:
    """A request for every line: a prompt, or an object with fields of the request.

    `fields` apply to all lines. Empty lines and lines that begin with # are skipped.

    Raises:
        WrongUsage: an object has no prompt or is no JSON, or a field has a value that JSON has not.
    """
    found: list[PromptLine] = []
    repeats: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("\ufeff")
        if not text or text.startswith("#"):
            continue
        try:
            body = {**fields, **_own_fields(text)}
            require_json(body)
        except WrongUsage as exc:
            raise WrongUsage(f"line {number} of the prompts: {exc}") from exc
        if not body.get("prompt") and not body.get("tags"):
            raise WrongUsage(f"line {number} of the prompts: the object has no prompt")
        content = json.dumps(body, sort_keys=True).encode()
        plain = hashlib.sha256(content).hexdigest()[:32]
        repeats[plain] += 1
        found.append(PromptLine(number, body, f"{plain}-{repeats[plain]}"))
    return found


_OBJECT = re.compile(r"""\{\s*["']""")
"""How an object begins, and no prompt."""


def _own_fields(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as exc:
        if _OBJECT.match(text):
            raise WrongUsage(f"it begins like an object, but is no JSON: {exc}") from exc
        return {"prompt": text}
    return fields if isinstance(fields, dict) else {"prompt": text}


class Results:
    """The file of results: one JSON object a line, added when a prompt has ended.

    Raises:
        ClientError: it cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESULTS
        self._done: set[str] = set()
        self._failures: Counter[str] = Counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            # A line that was cut off by a crash must not swallow the next one.
            if text and not text.endswith("\n"):
                self._append("\n")
        except UnicodeDecodeError as exc:
            raise ClientError(f"{self._path} is not UTF-8 text; move it away") from exc
        except OSError as exc:
            raise self._problem(exc) from exc
        for line in text.split("\n"):  # texts may contain other ends of lines, such as U+2028
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._read(json.loads(line))

    def _read(self, result: Mapping[str, Any]) -> None:
        files = [Path(file["path"]) for file in result["files"]]
        if result["status"] == "succeeded" and all(file.exists() for file in files):
            self._done.add(result["id"])
        else:
            self._failures[result["id"]] += 1

    def is_done(self, line: PromptLine) -> bool:
        """Whether it succeeded earlier and its files are still there."""
        return line.digest in self._done

    def idempotency_key(self, line: PromptLine) -> str:
        """The same until the line has ended, so that a job that was lost sight of is found."""
        place = hashlib.sha256(str(self._path.absolute()).encode()).hexdigest()[:16]
        return f"{place}-{line.digest}-{self._failures[line.digest]}"

    def add(self, result: Mapping[str, Any]) -> None:
        """Add the result of a line."""
        try:
            self._append(json.dumps(result, ensure_ascii=False) + "\n")
        except OSError as exc:
            raise self._problem(exc) from exc

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)

    def _problem(self, exc: OSError) -> ClientError:
        return ClientError(f"cannot use {self._path}: {exc.strerror}")


class PromptRun:
    """Jobs of a prompt file at a service, at most `at_once` at a time.

    Busy answers (429 and 503) are waited out, up to `timeout` seconds without any progress.
    """

    def __init__(
        self,
        client: httpx2.Client,
        results: Results,
        target: Target,
        *,
        at_once: int,
        timeout: float,
    ) -> None:
        self._client = client
        self._results = results
        self._target = target
        self._at_once = at_once
        self._timeout = timeout
        self._running: deque[tuple[PromptLine, Any]] = deque()

    def run(self, lines: Sequence[PromptLine]) -> Iterator[Mapping[str, Any]]:
        """Run the lines; yields the result of each, in their order unless one is refused.

        An interrupt or an error cancels the jobs that run. Repeating the run continues it.

        Raises:
            ClientError: the service is away, or a file cannot be written.
        """
        try:
            for line in lines:
                if len(self._running) == self._at_once:
                    yield self._end_oldest()
                yield from self._submit(line)
            while self._running:
                yield self._end_oldest()
        except BaseException:
            for line, job in self._running:
                if cancel_quietly(self._client, job["id"]):
                    self._keep(line, "cancelled", job)
            raise

    def _submit(self, line: PromptLine) -> Iterator[Mapping[str, Any]]:
        """Submit a line. Yields the results of those that had to end first, or its refusal."""
        deadline = time.monotonic() + self._timeout
        key = self._results.idempotency_key(line)
        while True:
            try:
                self._running.append((line, submit(self._client, "/generate", line.body, key)))
            except (Refused, NotFound) as exc:
                yield self._keep(line, "refused", error=str(exc))
            except ServiceAway as exc:
                if exc.problem is None or time.monotonic() > deadline:
                    raise
                if self._running:
                    yield self._end_oldest()
                    deadline = time.monotonic() + self._timeout
                else:
                    note(f"{exc}; it is tried again")
                    time.sleep(exc.retry_after or _PAUSE_SECONDS)
                continue
            return

    def _end_oldest(self) -> Mapping[str, Any]:
        """Wait for the oldest job, save its images; its result."""
        line, job = self._running[0]
        try:
            deadline = time.monotonic() + self._timeout
            follow(self._client, job["id"], deadline=deadline, show=lambda event, data: None)
            job = succeeded(send_for_json(self._client, "GET", job_path(job["id"])))
        except ServiceAway:
            raise
        except ClientError as exc:
            cancel_quietly(self._client, job["id"])
            self._running.popleft()
            return self._keep(line, "failed", job, error=str(exc))
        target = replace(self._target, stem=f"{line.number:04}")
        files = [image.as_json() for image in save_images(self._client, job["images"], target)]
        self._running.popleft()
        return self._keep(line, "succeeded", job, files=files)

    def _keep(
        self,
        line: PromptLine,
        status: str,
        job: Any = None,
        *,
        files: Sequence[Mapping[str, Any]] = (),
        error: str | None = None,
    ) -> Mapping[str, Any]:
        result = {
            "line": line.number,
            "status": status,
            "job": job and job["id"],
            "prompt": job["request"]["prompt"] if job else line.body.get("prompt"),
            "files": list(files),
            "warnings": [warning["detail"] for warning in job["warnings"]] if job else [],
            "error": error,
            "id": line.digest,
        }
        self._results.add(result)
        return result
