"""`make siege`: hostile clients against the service; the exit code is 1 if a bound is broken.

It prints the table of docs/security.md; `--write` puts it there.
"""

import argparse
import re
import sys
import time
from itertools import combinations

from tests.siege.hostile import ATTACKS
from tests.siege.service import besieged_service
from tests.siege.siege import HEADING, Round, attack
from tests.support.paths import ROOT

_PAGE = ROOT / "docs/security.md"
_MOST_SECONDS = 290.0
_PAUSE_SECONDS = 0.3
_TABLE = re.compile(r"\| hostile clients \|.*\n(?:\|.*\n)+")


def main() -> int:
    options = _options()
    kinds = options.only or list(ATTACKS)
    planned = [*combinations(kinds, 1), *combinations(kinds, 2)]
    rounds: list[Round] = []
    deadline = time.monotonic() + _MOST_SECONDS
    with besieged_service() as service:
        before = service.resident_bytes()
        for clients in planned:
            if time.monotonic() + options.seconds > deadline:
                break
            rounds.append(attack(service, clients, seconds=options.seconds, before=before))
            print(rounds[-1].row(), file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)
        log = service.log.read_text(encoding="utf-8", errors="replace")
    table = "\n".join([HEADING, *(one.row() for one in rounds)]) + "\n"
    print(table)
    if options.write:
        text = _PAGE.read_text(encoding="utf-8")
        _PAGE.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")
    broken = [fault for one in rounds for fault in one.broken(is_timed=True)]
    if len(rounds) < len(planned):
        broken.append(
            f"only {len(rounds)} of {len(planned)} rounds were possible in {_MOST_SECONDS:.0f} s"
        )
    if "Traceback" in log:
        broken.append(f"the log has a traceback:\n{log[log.index('Traceback') :][:3000]}")
    print("\n".join(broken) or "All bounds were kept.")
    return int(bool(broken))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make siege", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=ATTACKS, help="kinds of hostile clients")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each round")
    parser.add_argument("--write", action="store_true", help="put the table into docs/security.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
