"""The page of attention: what is in the file, and that nothing in it can reach out. Its behaviour: the browser test."""

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from capexport import ImageError, OptionError, OutputError
from capexport.attention_page import write_attention_page
from tests.conftest import made_caption

GREY = Image.new("RGB", (300, 200), "grey")
HOSTILE = ["</script><script>hacked()</script>", "<!--", "\"'&quot;", "{{photo}}", "<img/src=x>", "كلب", "犬", "[END]"]


@dataclass
class Page(HTMLParser):
    """A page taken apart."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    contents: dict[str, list[str]] = field(default_factory=dict)  # of each tag

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.contents.setdefault(tag, []).append("")
        if tag not in ("meta", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.contents[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict:
        return json.loads(self.contents["script"][0])

    @property
    def policy(self) -> dict[str, str]:
        (content,) = (m["content"] for m in self.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        return dict(directive.strip().split(" ", 1) for directive in content.split(";"))


@pytest.fixture
def write(tmp_path):
    def written(caption=None, photo=GREY, **options) -> Page:
        path = tmp_path / "page.html"
        write_attention_page(photo, caption or made_caption(["a", "dog", "[END]"]), path, force=True, **options)
        page = Page()
        page.feed(path.read_text("utf-8"))
        page.close()
        assert page._open == []
        return page

    return written


def test_it_holds_the_caption(write):
    caption = made_caption(["a", "dog", "[END]"], (3, 4, 6, 9))
    data = write(caption).data
    (held,) = data["captions"]
    assert held["words"] == ["a", "dog", "[END]"]
    np.testing.assert_allclose(held["probabilities"], np.exp(caption.log_probabilities), atol=1e-5)
    assert held["confidence"] == pytest.approx(caption.confidence, abs=1e-5)
    assert np.shape(held["attention"]) == (3, 3, 4, 6, 9)
    np.testing.assert_allclose(held["attention"], caption.cross_attention, atol=0.6e-5)


def test_the_choice_of_layer_and_head(write):
    for layer, head in ((None, None), (0, None), (None, 1), (1, 0)):
        data = write(layer=layer, head=head).data
        assert (data["layer"], data["head"]) == (layer, head)
    with pytest.raises(OptionError, match="no layer 2"):
        write(layer=2)
    with pytest.raises(OptionError, match="no head -1"):
        write(head=-1)


def test_it_may_fetch_nothing(write):
    page = write()
    policy = page.policy
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert policy.pop("img-src") == "data:"
    style, script = page.contents["style"][0], page.contents["script"][1]
    for kind, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(kind) == f"'sha256-{digest}'"
    assert not policy


def test_it_names_nothing_outside_itself(write, tmp_path):
    page = write()
    for _, attributes in page.elements:
        assert not attributes.keys() & {"href", "srcset", "action", "style"}
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|import\(", (tmp_path / "page.html").read_text("utf-8"))


def test_hostile_words_stay_words(write, tmp_path):
    plain, page = write(), write(made_caption(HOSTILE))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.data["captions"][0]["words"] == HOSTILE
    text = " ".join(HOSTILE[:-1])
    assert page.all("img")[0]["alt"] == text
    assert page.contents["title"][0].startswith(text)
    assert page.contents["script"][1] == plain.contents["script"][1]
    assert (tmp_path / "page.html").read_text("utf-8").count("<!--") == 0


def shown(page: Page) -> Image.Image:
    (image,) = page.all("img")
    photo = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))))
    assert (int(image["width"]), int(image["height"])) == photo.size
    return photo


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 200), (300, 200)), ((4000, 3000), (1000, 750)), ((90, 2000), (45, 1000))]
)
def test_the_photo_keeps_its_aspect_ratio(write, size, expected):
    assert shown(write(photo=Image.new("RGB", size))).size == expected


def test_the_photo_is_upright(write):
    stored = Image.new("RGB", (300, 200), "red")
    stored.paste("blue", (0, 0, 150, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    stream = io.BytesIO()
    stored.save(stream, "PNG", exif=exif)
    photo = shown(write(photo=stream.getvalue()))
    assert photo.size == (200, 300)
    assert photo.getpixel((100, 20))[2] > 200
    assert photo.getpixel((100, 280))[0] > 200
    assert not photo.getexif()


def test_it_can_be_used_without_seeing_it(write):
    page = write()
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("img")[0]["alt"] == "a dog"
    assert page.contents["title"] == ["a dog · where the model looked"]
    assert len(page.all("output")) == 1  # announced by screen readers
    assert len(page.contents["h1"]) == 1
    style = page.contents["style"][0]
    assert "prefers-color-scheme: dark" in style
    assert "prefers-reduced-motion" in style
    assert "focus-visible" in style


def test_a_long_caption_is_not_a_large_file(write, tmp_path, photos):
    write(made_caption(["word"] * 50), photo=photos[0])
    assert (tmp_path / "page.html").stat().st_size < 400_000


def test_it_needs_no_matplotlib(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write()


def test_nothing_is_replaced_unasked_and_no_half_is_left(tmp_path):
    path = tmp_path / "page.html"
    caption = made_caption(["a"])
    with pytest.raises(ImageError, match="no photo"):
        write_attention_page(tmp_path / "none.jpg", caption, path)
    with pytest.raises(OptionError):
        write_attention_page(GREY, caption, path, layer=9)
    assert list(tmp_path.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_attention_page(GREY, caption, path)
    assert path.read_text() == "mine"
    with pytest.raises(OutputError, match="cannot be written"):
        write_attention_page(GREY, caption, path / "below a file" / "page.html")
    write_attention_page(GREY, caption, path, force=True)
    assert list(tmp_path.iterdir()) == [path]
