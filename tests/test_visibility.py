"""What draws change, against a loop over draws and pixels' own differences."""

import numpy as np
import torch

from spdlib.notebooks.figures.smoothblend import around, difference
from spdlib.smoothblend import CutPaste, SmoothBlend
from spdlib.visibility import changes, rim


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_changes_are_those_of_a_loop():
    images = (255 * torch.rand(3, 3, 40, 60, generator=generator(1))).byte()
    for blend in (SmoothBlend(), CutPaste(), SmoothBlend(p=0.3)):
        draw = blend.draw(70, (40, 60), generator())
        found = changes(images, blend, draw)
        pixels = np.zeros((2, 256))
        for i, (left, top, right, bottom) in enumerate(draw.target_boxes.tolist()):
            before = images[i % 3]
            after = blend.blend(before, draw[[i]])
            change = np.abs(after.numpy().astype(int) - before.numpy().astype(int)).max(0)
            inside = np.zeros((40, 60), bool)
            inside[top:bottom, left:right] = bool(draw.blended[i])
            row = found.draws.loc[i]
            assert row.image == i % 3
            assert row.inside == (change * inside).max() and row.around == (change * ~inside).max()
            for place, chosen in enumerate((inside, ~inside)):
                pixels[place] += np.bincount(change[chosen], minlength=256)
        np.testing.assert_allclose(found.pixels, pixels / 70, rtol=1e-6)


def test_a_rim_is_what_a_loop_over_edges_finds():
    images = torch.rand(2, 3, 32, 40, generator=generator(1))
    blend = SmoothBlend(area=(0.02, 0.1))
    draw = blend.draw(5, (32, 40), generator())
    found, jumps, around, everywhere = rim(images, blend, draw), [], 0, 0
    for i, (left, top, right, bottom) in enumerate(draw.target_boxes.tolist()):
        image = images[[i % 2]]
        d = 255 * (blend.blend(image, draw[[i]]) - image)[0].mean(0).numpy()
        for y in range(top, bottom):
            jumps += [abs(d[y, left] - d[y, left - 1])] if left else []
            jumps += [abs(d[y, right - 1] - d[y, right])] if right < 40 else []
        for x in range(left, right):
            jumps += [abs(d[top, x] - d[top - 1, x])] if top else []
            jumps += [abs(d[bottom - 1, x] - d[bottom, x])] if bottom < 32 else []
        everywhere += np.abs(d).sum()
        around += np.abs(d).sum() - np.abs(d[top:bottom, left:right]).sum()
    np.testing.assert_allclose(found["jump"], np.mean(jumps), rtol=1e-4)
    np.testing.assert_allclose(found["outside"], around / everywhere, rtol=1e-4)


def test_floats_are_taken_as_a_screen_shows_them():
    images = torch.rand(2, 3, 32, 32, generator=generator())
    draw = SmoothBlend().draw(10, (32, 32), generator())
    whole = (images * 255.999).to(torch.uint8)  # as torchvision rounds
    assert changes(images, SmoothBlend(), draw).draws.equals(
        changes(whole, SmoothBlend(), draw).draws
    )


def test_a_difference_is_blue_where_darker_and_red_where_brighter():
    before = torch.full((3, 1, 4), 0.5)
    after = before.clone()
    after[1, 0, 1], after[:, 0, 2], after[0, 0, 3] = 0.6, 0.4, 0.5 + 1 / 255
    red, green, blue = difference(before, after, gain=4)[0].astype(int).T
    assert red[1] > blue[1] + 30 and blue[2] > red[2] + 30
    assert abs(red[0] - blue[0]) <= 2 and min(red[0], green[0], blue[0]) > 240
    assert red[3] >= blue[3]
    assert np.array_equal(difference(before, after, 100)[0, 1], difference(before, after, 10)[0, 1])


def test_around_stays_in_the_image():
    image = torch.arange(20 * 30).view(1, 20, 30)
    assert torch.equal(around(image, (12, 8, 16, 12), 10), image[:, 5:15, 9:19])
    assert torch.equal(around(image, (0, 0, 2, 2), 10), image[:, :10, :10])
    assert torch.equal(around(image, (28, 18, 30, 20), 10), image[:, 10:, 20:])
    assert torch.equal(around(image, (3, 3, 5, 5), 25), image[:, :, :25])
