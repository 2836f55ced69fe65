"""Captions in files beside their photos: a text file, or an XMP packet that photo managers read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ..atomic import check_plain, clear_partials, new_file
from ..errors import OutputError
from ..plain import read_plain
from .storage import Source

MOST_BYTES = 1 << 20  # of a sidecar that is looked into; ours are far smaller
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold
OURS = b'x:xmptk="capexport"'  # the toolkit that wrote a packet; whoever edits it puts another in its place
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="capexport">
  <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description>
    </rdf:Description>
  </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


@dataclass(frozen=True)
class Sidecar:
    """A kind of sidecar.

    suffix  of the sidecars' names
    name    of a photo's sidecar, from the photo's name
    body    of the sidecar, from the caption's text
    ours    whether a file of this body was written by capexport, and by nobody else since
    """

    suffix: str
    name: Callable[[Path], Path]
    body: Callable[[str], str]
    ours: Callable[[bytes], bool]

    def write(self, photo: Path, text: str, force: bool) -> None:
        """Write the photo's sidecar, whole or not at all.

        Raises OutputError if there is one that is not ours and force is not set, or if it cannot be written.
        """
        path, body = self.name(photo), self.body(text).encode()
        if self._taken(path, force) and _content(path) != body:
            raise OutputError(_refusal(path))
        with new_file(path) as partial:
            partial.write_bytes(body)

    def check_absent(self, photo: Path, force: bool) -> None:
        """Raise OutputError if the photo has a sidecar that is not ours and force is not set."""
        path = self.name(photo)
        if self._taken(path, force):
            raise OutputError(_refusal(path))

    def replace(self, photo: Path, before: set[str], text: str) -> None:
        """Write the photo's sidecar anew, or remove it if the text is empty; one that nobody of us wrote is left alone.

        before  what the caption may have been: a sidecar that says it is ours
        """
        path = self.name(photo)
        if path.exists():
            body = _content(path)
            if body is None or not (self.ours(body) or body in {self.body(one).encode() for one in before}):
                return
        if text:
            with new_file(path) as partial:
                partial.write_bytes(self.body(text).encode())
        else:
            path.unlink(missing_ok=True)

    def _taken(self, path: Path, force: bool) -> bool:
        check_plain(path)
        if force or not path.exists():
            return False
        body = _content(path)
        return body is None or not self.ours(body)


def _content(path: Path) -> bytes | None:
    """What is in a sidecar, None for one that cannot be one of ours."""
    try:
        return read_plain(path, MOST_BYTES)
    except OSError:
        return None


def _refusal(path: Path) -> str:
    return f"{path} exists already and is not known to be capexport's; move it away, or pass --force to replace it."


TEXT = Sidecar(
    ".txt",
    name=lambda photo: photo.with_name(photo.name + ".txt"),
    body=lambda text: text + "\n",
    ours=lambda body: False,  # a text says nothing of who wrote it
)
XMP = Sidecar(
    ".xmp",
    name=lambda photo: photo.with_suffix(".xmp"),
    body=lambda text: PACKET.format(escape(NO_XML.sub("", text))),
    ours=lambda body: OURS in body,
)


def check_sidecars(photos: Iterable[Source], sidecars: Iterable[Sidecar], fresh: bool, force: bool) -> int:
    """Go through the photos, a folder's one after the other, and return how many there are.

    Raises OutputError if two of them would share a sidecar; if fresh, and force is not set, for the first sidecar that
    is in the way. (A run that is resumed meets its own, which are the same again.)
    """
    kinds, count = tuple(sidecars), 0
    folder: Path | None = None
    named: dict[Path, Path] = {}
    for photo in photos:
        count += 1
        if not isinstance(photo, Path):
            continue
        if photo.parent != folder:
            folder = photo.parent
            named.clear()
            for kind in () if fresh else kinds:
                clear_partials(folder, suffix=kind.suffix)
        for kind in kinds:
            other = named.setdefault(kind.name(photo), photo)
            if other != photo:
                raise OutputError(f"{other} and {photo} would share {kind.name(photo)}; rename one of them.")
            if fresh:
                kind.check_absent(photo, force)
    return count
