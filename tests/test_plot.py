"""The figure of attention: one readable panel a word, for any caption, photo and map."""

import dataclasses
import io
import itertools
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from capexport import ImageError, MissingExtraError, OptionError, OutputError, plot
from capexport.plot import draw_attention
from tests.conftest import made_caption

GREY = Image.new("RGB", (300, 200), "grey")
FIFTY = [f"word{i}" * (1 + i % 3) for i in range(49)] + ["[END]"]


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draws into a file and returns the figure."""
    figures = []
    save = plot.save_figure
    monkeypatch.setattr(plot, "save_figure", lambda figure, *rest: (figures.append(figure), save(figure, *rest)))

    def drawn(photo, caption, **options):
        draw_attention(photo, caption, tmp_path / "drawn.png", force=True, **options)
        return figures[-1]

    return drawn


def panels(figure) -> list[np.ndarray]:
    *each, _legend = (np.asarray(image.get_array()) for image in figure.images)
    return each


def boxes(figure) -> list[tuple[float, float, float, float]]:
    """Left, bottom, right and top of everything drawn, in pixels."""
    texts = [text.get_window_extent().extents for text in figure.texts if text.get_text()]
    images = [(i.ox, i.oy, i.ox + i.get_array().shape[1], i.oy + i.get_array().shape[0]) for i in figure.images]
    return texts + images


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["[END]"], (300, 200)),
        (["dog"], (90, 400)),
        (["dog", "[END]"], (1000, 80)),
        ([*"abcdefghi", "[END]"], (90, 400)),
        (FIFTY, (300, 200)),
        (FIFTY, (90, 400)),
        (["Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "[END]"], (300, 200)),
        (["x" * 300, "skateboarding", "y" * 20], (90, 400)),
        (["$x^2$", r"\frac{", "<b>", "100%", "собака", "ξένος", "كلب", "כלב", "犬", "[END]"], (1000, 80)),
    ],
)
def test_every_caption_is_readable(draw, tmp_path, words, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(Image.new("RGB", size, "grey"), made_caption(words))
    width, height = Image.open(tmp_path / "drawn.png").size
    assert max(width, height) < 4000
    assert len(panels(figure)) == len(words)
    drawn = [text.get_text().replace("\n", "") for text in figure.texts]
    assert set(words) <= set(drawn)
    for left, bottom, right, top in boxes(figure):
        assert 0 <= left < right <= width
        assert 0 <= bottom < top <= height
    for one, other in itertools.combinations(boxes(figure), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart
    assert min(text.get_fontsize() for text in figure.texts) > 6


def test_it_says_what_it_shows(draw):
    caption = made_caption(["a", "dog", "[END]"])
    text = [text.get_text() for text in draw(GREY, caption).texts]
    assert caption.text in text
    assert {f"{np.exp(value):.0%}" for value in caption.log_probabilities} <= set(text)
    assert "Attention: mean of 2 layers, mean of 2 heads" in text
    assert "Attention: layer 1, mean of 2 heads" in [t.get_text() for t in draw(GREY, caption, layer=1).texts]
    assert "Attention: layer 0, head 1" in [t.get_text() for t in draw(GREY, caption, layer=0, head=1).texts]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 224), (800, 100), (3000, 2000), (16, 12)])
def test_the_photo_keeps_its_aspect_ratio(draw, size):
    height, width, _ = panels(draw(Image.new("RGB", size), made_caption(["a"] * 5)))[0].shape
    assert width / height == pytest.approx(size[0] / size[1], rel=0.03)


def test_the_photo_is_upright(draw):
    stored = Image.new("RGB", (300, 200), "black")
    stored.paste("white", (0, 0, 150, 200))  # the left half; turned upright (a quarter clockwise) the upper one
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    stored.save(stream, "JPEG", exif=exif)
    panel = panels(draw(stream.getvalue(), flat(["a", "b", "c"])))[0]
    height, width, _ = panel.shape
    assert height > width
    assert panel[: height // 3].mean() > panel[-height // 3 :].mean() + 50


def flat(words: list[str]):
    return dataclasses.replace(
        made_caption(words), cross_attention=np.full((len(words), 2, 2, 7, 7), 1 / 49, np.float32)
    )


def test_a_flat_map_shows_no_focus(draw):
    for panel in panels(draw(GREY, flat(["a", "dog", "[END]"]))):
        assert (panel == panel[0, 0]).all()
        assert panel.mean() < 128


def looking_at(cells: list[tuple[int, int]], shape: tuple[int, int]):
    """A caption whose every word looks at one cell."""
    caption = made_caption(["word"] * len(cells), (2, 2, *shape))
    weights = np.full_like(caption.cross_attention, 0.1 / (np.prod(shape) - 1))
    for word, (row, column) in enumerate(cells):
        weights[word, :, :, row, column] = 0.9
    return dataclasses.replace(caption, cross_attention=weights)


@pytest.mark.parametrize("shape", [(2, 2), (7, 7), (10, 10), (6, 9)])
@pytest.mark.parametrize("colour", ["black", "grey", "white"])
def test_it_is_brightest_where_the_model_looked(draw, shape, colour):
    cells = [(0, 0), (1, shape[1] - 1), (shape[0] - 1, 1)]
    for panel, cell in zip(
        panels(draw(Image.new("RGB", (300, 200), colour), looking_at(cells, shape))), cells, strict=True
    ):
        brightness = panel.sum(axis=2, dtype=int)
        y, x = np.unravel_index(brightness.argmax(), brightness.shape)
        assert (y * shape[0] // panel.shape[0], x * shape[1] // panel.shape[1]) == cell
        assert brightness.max() > brightness.min() + 200


def test_words_share_one_scale(draw):
    sharp = looking_at([(3, 3), (3, 3)], (7, 7))
    sharp.cross_attention[1] = (sharp.cross_attention[1] + 9 / 49) / 10  # diffuse, of sum 1
    focused, diffuse = panels(draw(GREY, sharp))
    assert focused.max() > diffuse.max() + 30


def test_the_chosen_layer_and_head(draw):
    caption = made_caption(["a", "b", "c"])
    mean, first, second, head = (
        panels(draw(GREY, caption, **which))[0] for which in ({}, {"layer": 0}, {"layer": 1}, {"layer": 0, "head": 1})
    )
    only = dataclasses.replace(caption, cross_attention=caption.cross_attention[:, :1, 1:])
    np.testing.assert_array_equal(head, panels(draw(GREY, only))[0])
    for one, other in itertools.combinations((mean, first, second, head), 2):
        assert (one != other).any()


def test_it_fails_cleanly(tmp_path, monkeypatch):
    path = tmp_path / "attention.png"
    caption = made_caption(["a", "[END]"])
    with pytest.raises(OptionError, match="no layer 2"):
        draw_attention(GREY, caption, path, layer=2)
    with pytest.raises(OptionError, match="no head -1"):
        draw_attention(GREY, caption, path, head=-1)
    with pytest.raises(ImageError, match="no photo"):
        draw_attention(tmp_path / "none.jpg", caption, path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError, match="plot"):
            draw_attention(GREY, caption, path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "attention.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        draw_attention(GREY, made_caption(["a"]), path)
    with pytest.raises(OutputError, match="cannot be written"):
        draw_attention(GREY, made_caption(["a"]), path / "below a file" / "attention.png")
    assert path.read_bytes() == b"mine"
    draw_attention(GREY, made_caption(["a"]), path, force=True)
    assert Image.open(path).mode == "RGB"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_large(draw, photos, tmp_path):
    draw(photos[0], made_caption(FIFTY))
    assert (tmp_path / "drawn.png").stat().st_size < 2_500_000
