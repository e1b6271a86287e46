"""The signs of a fault that docs/operating.md promises, looked for while the fault lasts."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import httpx2

from tests.support.paths import ROOT

PAGE = ROOT / "docs/operating.md"
_HEADER = "| fault | `/readyz` |"
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Promise:
    """A row of the page: texts of `/readyz`, metrics that change, texts of log lines, alerts."""

    readyz: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()


@cache
def promises() -> dict[str, Promise]:
    """The rows of the page's tables of signs by fault."""
    found = {}
    for table in PAGE.read_text(encoding="utf-8").split(_HEADER)[1:]:
        for row in table.partition("\n\n")[0].splitlines()[2:]:
            name, *cells, _ = (cell.strip() for cell in row.strip("|").split("|"))
            found[name] = Promise(*(tuple(_CODE.findall(cell)) for cell in cells))
    return found


class Signs:
    """Looks for what the page says of one fault. `missing` are the signs that were not seen yet.

    `urls` are those of the APIs, `secret` is a key for them, and `read_logs` gives everything that
    was logged since this began.
    """

    def __init__(
        self, fault: str, urls: Sequence[str], read_logs: Callable[[], str], *, secret: str = ""
    ) -> None:
        self._fault = fault
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._urls = urls
        self._read_logs = read_logs
        self._promise = promises().get(fault, Promise())
        self._before = self._metrics()
        self.missing = {
            *(f"/readyz says {text}" for text in self._promise.readyz),
            *(f"{name} changes" for name in self._promise.metrics),
            *(f"the log says {text}" for text in self._promise.log),
        }

    def look(self) -> bool:
        """Look once; whether all signs were seen by now."""
        if not self.missing:
            return True
        answers = [self._get(url, "/readyz") for url in self._urls]
        logs = self._read_logs()
        now = self._metrics()
        changed = {name for name, lines in now.items() if lines != self._before.get(name)}
        changed |= self._before.keys() - now.keys()
        seen = {f"/readyz says {t}" for t in self._promise.readyz if any(t in a for a in answers)}
        seen |= {f"the log says {text}" for text in self._promise.log if text in logs}
        seen |= {
            f"{name} changes"
            for name in self._promise.metrics
            if now and any(one.startswith(name) for one in changed)
        }
        self.missing -= seen
        return not self.missing

    def problems(self) -> list[str]:
        """A problem for each promised sign that was not seen."""
        return [f"{self._fault}: not seen that {sign}" for sign in sorted(self.missing)]

    def _metrics(self) -> dict[str, list[str]]:
        """The samples of each metric, from the first API that answers."""
        text = next(filter(None, (self._get(url, "/metrics") for url in self._urls)), "")
        samples: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name = re.split(r"[{ ]", line, maxsplit=1)[0]
                samples.setdefault(name, []).append(line)
        return samples

    def _get(self, url: str, path: str) -> str:
        """The status and the text of a response; empty without one."""
        try:
            answer = httpx2.get(f"{url}{path}", headers=self._headers, timeout=5, trust_env=False)
        except httpx2.HTTPError:
            return ""
        return f"{answer.status_code} {answer.text}" if path == "/readyz" else answer.text
