"""The signs of a fault that docs/operating.md promises, looked for while the fault lasts."""

import re
from dataclasses import dataclass
from functools import cache

import httpx2

from tests.chaos.cluster import Cluster
from tests.support.paths import ROOT

PAGE = ROOT / "docs/operating.md"
_ROW = re.compile(r"^\| (?!fault|---)([^|]+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Promise:
    """A row of the page: texts of `/readyz`, metrics that change, and texts of log lines."""

    readyz: tuple[str, ...]
    metrics: tuple[str, ...]
    log: tuple[str, ...]


@cache
def promises() -> dict[str, Promise]:
    """The rows of the page's table by fault."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {
        name.strip(): Promise(*(tuple(_CODE.findall(cell)) for cell in cells))
        for name, *cells in _ROW.findall(text)
    }


class Signs:
    """Looks for what the page says of one fault. `missing` are the signs that were not seen yet."""

    def __init__(self, cluster: Cluster, fault: str) -> None:
        self._cluster = cluster
        self._fault = fault
        self._promise = promises().get(fault, Promise((), (), ()))
        self._logged = {one.name: len(one.new_lines(0).encode()) for one in cluster.members}
        self._before = self._metrics()
        self.missing = {
            *(f"/readyz says {text}" for text in self._promise.readyz),
            *(f"{name} changes" for name in self._promise.metrics),
            *(f"the log says {text}" for text in self._promise.log),
        }

    def look(self) -> None:
        """Look once."""
        if not self.missing:
            return
        answers = [self._get(url, "/readyz") for url in self._cluster.api_urls]
        logs = "".join(one.new_lines(self._logged[one.name]) for one in self._cluster.members)
        now = self._metrics()
        seen = {f"/readyz says {t}" for t in self._promise.readyz if any(t in a for a in answers)}
        seen |= {f"the log says {text}" for text in self._promise.log if text in logs}
        seen |= {
            f"{name} changes"
            for name in self._promise.metrics
            if now and now.get(name) != self._before.get(name)
        }
        self.missing -= seen

    def problems(self) -> list[str]:
        """A problem for each promised sign that was not seen."""
        return [f"{self._fault}: not seen that {sign}" for sign in sorted(self.missing)]

    def _metrics(self) -> dict[str, list[str]]:
        """The samples of each metric, from the first API that answers."""
        text = next(filter(None, (self._get(u, "/metrics") for u in self._cluster.api_urls)), "")
        samples: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name = re.split(r"[{ ]", line, maxsplit=1)[0]
                samples.setdefault(name, []).append(line)
        return samples

    def _get(self, url: str, path: str) -> str:
        """The status and the text of a response; empty without one."""
        try:
            answer = httpx2.get(f"{url}{path}", timeout=3, trust_env=False)
        except httpx2.HTTPError:
            return ""
        return f"{answer.status_code} {answer.text}" if path == "/readyz" else answer.text
