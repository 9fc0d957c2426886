"""What a page of HTML refers to: places in itself and in other pages, and things that a browser would fetch."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
OUTSIDE = re.compile(r"^(?:https?:)?//")
CSS_OUTSIDE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^)'\"]+)")


class Page(HTMLParser):
    """The ids of a page, its links, and the addresses it has fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
        self.fetched += [address for style in styles for address in CSS_OUTSIDE.findall(style)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "license"):
            self.fetched.append(given.get("href", ""))
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])

    def outside(self) -> list[str]:
        """Addresses elsewhere that opening the page would fetch from."""
        return [address for address in self.fetched if OUTSIDE.match(address)]


def broken_links(pages: list[Page]) -> list[str]:
    """Links and fetched files within the site that lead nowhere, as "page -> link"."""
    by_path = {page.path.resolve(): page for page in pages}
    broken = []
    for page in pages:
        for link in {*page.links, *page.fetched}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("#top"):
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path.resolve()
            there = by_path.get(target)
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and there is not None and anchor not in there.ids):
                broken.append(f"{page.path.name} -> {link}")
    return sorted(broken)
