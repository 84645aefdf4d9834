"""A page and where it leads."""

from bs4 import BeautifulSoup


def links(page: str) -> list[str]:
    """Return the addresses that a page links to, in its order."""
    return [anchor["href"] for anchor in BeautifulSoup(page, "html.parser").find_all("a", href=True)]
