"""What a page links to."""

from links.page import links


def test_links() -> None:
    """Anchors without an address lead nowhere."""
    assert links('<a href="/b">b</a> <a name="c">c</a> <a href="/a">a</a>') == ["/b", "/a"]
