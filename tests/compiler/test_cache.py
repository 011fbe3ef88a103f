# SPDX-License-Identifier: Apache-2.0
"""The cache of objects: bounded, and never wrong."""

import os

import pytest

from polycube.compiler.cache import ObjectCache, key


@pytest.fixture
def cache(tmp_path):
    return ObjectCache(tmp_path / "cache", bound=1000)


def test_what_is_put_is_found(cache):
    assert cache.get("a") is None
    cache.put("a", b"object")
    assert cache.get("a") == b"object"
    assert ObjectCache(cache.folder).get("a") == b"object", "another process finds it, too"


DAMAGES = {
    "cut": lambda content: content[:-1],
    "grown": lambda content: content + b"x",
    "empty": lambda content: b"",
    "half a header": lambda content: content[:20],
    "a bit": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
    "no magic": lambda content: content[6:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_a_miss_and_goes(cache, damage):
    cache.put("a", b"object" * 10)
    path = cache.path("a")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("a") is None
    assert not path.exists()
    cache.put("a", b"object")
    assert cache.get("a") == b"object"


def test_the_least_recently_used_go_first(cache):
    for number, name in enumerate("abc"):
        cache.put(name, bytes(260))
        os.utime(cache.path(name), (number, number))
    cache.get("a")  # now the latest
    cache.put("d", bytes(260))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.bound


def test_an_object_larger_than_the_bound_is_kept_alone(cache):
    cache.put("a", bytes(10))
    cache.put("b", bytes(5000))
    assert cache.get("b") == bytes(5000)
    assert cache.get("a") is None


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "cache")
    cache.put("a", b"object")
    assert cache.get("a") is None


def test_keys_tell_contents_and_order_apart():
    assert key([b"a", b"b"]) == key([b"a", b"b"])
    assert len({key([b"a", b"b"]), key([b"b", b"a"]), key([b"ab"]), key([b"a"])}) == 4
