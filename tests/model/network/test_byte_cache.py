"""A cache that is bounded by the size of its values."""

from model.network.byte_cache import ByteCache


def test_the_least_recently_used_values_go_first() -> None:
    cache: ByteCache[str] = ByteCache(6, len)
    made: list[str] = []

    def get(value: str) -> str:
        def make() -> str:
            made.append(value)
            return value

        return cache.get(value, make)

    for value in ("aa", "bb", "cc", "aa", "dd", "aa", "cc", "bb"):
        assert get(value) == value
    assert made == ["aa", "bb", "cc", "dd", "bb"]
    assert cache.size == 6


def test_a_value_larger_than_the_cache_is_returned_but_not_kept() -> None:
    cache: ByteCache[str] = ByteCache(3, len)
    assert cache.get("key", lambda: "long") == "long"
    assert cache.get("key", lambda: "again") == "again"
    assert cache.size == 0


def test_a_cleared_cache_makes_values_again() -> None:
    cache: ByteCache[str] = ByteCache(10, len)
    cache.get("key", lambda: "old")
    cache.clear()
    assert cache.size == 0
    assert cache.get("key", lambda: "new") == "new"
