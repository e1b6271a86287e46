"""`GET /tags` completes tags from the operator's list or the words of the card."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from api.main import create_app
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from worker.settings import Settings
from worker.wrong_settings import WrongSettings


@pytest.fixture(scope="module")
def with_list(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    path = tmp_path_factory.mktemp("tags") / "tags.csv"
    path.write_text("long_hair,0,800,longhair\nlong_sleeves,0,900,\nlonk_(zelda),4,3,\nwlop,1,9,\n")
    with ApiServer(settings.model_copy(update={"tags_file": path})) as running:
        yield running


def complete(server: ApiServer, **query: str) -> httpx2.Response:
    return httpx2.get(f"{server.url}/tags", params=query, timeout=60)


def test_tags_of_the_list(with_list: ApiServer) -> None:
    items = complete(with_list, prefix="Lon", limit="3").json()["items"]
    assert items == [
        {"tag": "long sleeves", "category": "general", "count": 900, "alias_of": None},
        {"tag": "long hair", "category": "general", "count": 800, "alias_of": None},
        {"tag": "lonk (zelda)", "category": "character", "count": 3, "alias_of": None},
    ]
    assert complete(with_list, prefix="longh").json()["items"] == [
        {"tag": "longhair", "category": "general", "count": 800, "alias_of": "long hair"},
    ]


def test_the_prefix_may_have_the_mark_of_an_artist(with_list: ApiServer) -> None:
    for prefix in ("@wl", "wl", " @wl"):
        (item,) = complete(with_list, prefix=prefix).json()["items"]
        assert (item["tag"], item["category"]) == ("wlop", "artist")


def test_a_list_also_adds_warnings(with_list: ApiServer) -> None:
    plan = httpx2.post(
        f"{with_list.url}/generate",
        params={"dry_run": "true"},
        json={"prompt": "1girl, longhair"},
        timeout=60,
    ).json()
    (alias,) = [found for found in plan["warnings"] if found["code"] == "unknown_tag"]
    assert "write long hair for longhair" in alias["detail"]


def test_without_a_list_the_words_of_the_card_are_completed(server: ApiServer) -> None:
    items = complete(server, prefix="1g").json()["items"]
    assert items == [{"tag": "1girl", "category": "subject", "count": None, "alias_of": None}]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [({"limit": "0"}, "limit"), ({"limit": "101"}, "limit"), ({"prefix": "a" * 201}, "prefix")],
)
def test_wrong_queries_are_named(server: ApiServer, query: dict[str, str], pointer: str) -> None:
    answer = complete(server, **query)
    assert answer.status_code == 422
    assert pointer in str(read_problem(answer)["errors"])


def test_an_invalid_list_prevents_the_start(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(WrongSettings, match=r"^KIRAZURI_TAGS_FILE: .*No such file"):
        create_app(settings.model_copy(update={"tags_file": tmp_path / "none.csv"}))
