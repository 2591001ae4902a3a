"""The embedded store's own server keeps freed memory at hand, unless whoever starts it has other wishes."""

from pathlib import Path

from service.store.embedded import ALLOCATOR, EmbeddedStore


def test_the_callers_own_wishes_come_before_the_stores(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path, tmp_path / "socket")
    assert store.environment({"PATH": "/bin"}) == {**ALLOCATOR, "PATH": "/bin"}
    own = dict.fromkeys(ALLOCATOR, "glibc.malloc.tcache_count=1")
    assert store.environment(own) == own
