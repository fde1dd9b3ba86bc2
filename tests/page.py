"""A report as a browser takes it apart: its elements, text and figures, and whatever could reach outside."""

from __future__ import annotations

import html.parser
import xml.etree.ElementTree as ET

VOID = {"meta", "input", "br"}
REACHING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "ping"}


class Page(html.parser.HTMLParser):
    """A page that was read.

    Attributes:
        text: All text but that of style and script.
        tags: How often each element occurs.
        figures: Values by the names in ``data-figure`` and ``data-account``.
        reaching: Attributes that would load or link something, and handlers.
        scripts: Each script's text.
        svgs: The drawings, parsed as XML.
    """

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.content = content
        self.text = ""
        self.tags = {}
        self.figures = {}
        self.reaching = []
        self.scripts = []
        self.styles = []
        self._open = []
        self.feed(content)
        self.close()
        assert self._open == [], "every element is closed"
        self.svgs = [ET.fromstring(each) for each in self._cut("<svg", "</svg>")]

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        given = dict(attrs)
        for name, value in attrs:
            if name in REACHING or name.startswith("on"):
                self.reaching.append((tag, name, value))
        for key in ("data-figure", "data-account"):
            if key in given:
                self.figures[given[key]] = float(given["data-value"]) if given["data-value"] else None
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, "elements are nested"

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._open[-1:] == ["style"]:
            self.styles.append(data)
        else:
            self.text += data

    def _cut(self, start, stop):
        place = 0
        while (place := self.content.find(start, place)) >= 0:
            end = self.content.index(stop, place) + len(stop)
            yield self.content[place:end]
            place = end
