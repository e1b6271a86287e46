"""`python -m tests.policy_figures` counts what the policy refuses in any list of tags."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.tools.policy_figures import ListedTag, figures, read_list

LIST = """tag,type,count,aliases
nude,0,60,"naked,bare"
sex,0,20,
red_hat,0,15,hat
public_bikini,0,5,
kiss_(cosplay),0,10,
bad_porn,1,1,
ganyu_(genshin_impact),4,3,
"""


def test_a_list_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(LIST)
    tags = read_list(path)
    refused = {tag.name: tag.name in ("nude", "sex", "bad_porn", "red_hat") for tag in tags}
    shares = [share for _, share in figures(tags, refused, {"red_hat": "only clothing"})]
    assert [(share.refused, share.tags) for share in shares] == [
        (3, 5), (2, 4), (2, 3), (1, 3), (1, 2),
    ]  # fmt: skip
    assert shares[0].by_posts == pytest.approx(95 / 110)
    assert shares[1].by_tag == pytest.approx(0.5)
    assert shares[4].by_posts == pytest.approx(1 / 4)


def test_a_list_without_a_heading_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("a,0,1\nb,4,2,\n")
    assert read_list(path) == [ListedTag("a", "0", 1), ListedTag("b", "4", 2)]
    path.write_text("a,0,1\nb,4\n")
    with pytest.raises(ValueError, match="row 2: expected name,category,count"):
        read_list(path)


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(LIST)
    command = [sys.executable, "-m", "tests.policy_figures", str(path)]
    command += ["--show", "passed", "--tries", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    general = next(line for line in run.stdout.splitlines() if " general tags" in line)
    assert general.split()[-4:] == ["5", "2", "40.00%", "72.73%"]
    assert "red_hat public_bikini" in run.stdout
    assert "split words" in run.stdout
