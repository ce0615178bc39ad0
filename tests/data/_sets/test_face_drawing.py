import numpy as np
import pytest

from jaxdebias.data._sets.face_drawing import (
    BLOCK,
    EXPRESSIONS,
    Looks,
    Muscles,
    draw_faces,
    draw_looks,
    draw_muscles,
    skin_colour,
)

AT_REST = Muscles(*(np.array([value], np.float32) for value in (0, 0, 0.28, 0, 0, 1, 0)))


def one(**changes):
    """One face in the middle of the picture, upright, in even light, without hair, beard or glasses."""
    looks = draw_looks(np.random.default_rng(0), 1)
    plain = {
        "x": 0,
        "y": 0,
        "size": 0.7,
        "tilt": 0,
        "turn": 0,
        "beard": 0,
        "volume": -1,
        "level": 1,
        "slope": 0,
        "tone": 0.1,
        "gaze": 0,
        "width": 0.7,
        "jaw": 0.2,
    } | changes
    fields = {name: np.full(1, value, np.float32) for name, value in plain.items()}
    return looks._replace(**fields | {"glasses": np.zeros(1, bool)})


def test_a_face_does_not_depend_on_the_others_in_its_block():
    rng = np.random.default_rng(0)
    n = BLOCK + 3
    looks, muscles = draw_looks(rng, n), draw_muscles(rng, np.arange(n) % 4)
    whole = draw_faces(looks, muscles, 16)
    assert whole.shape == (n, 16, 16, 3)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 1
    for i in (0, BLOCK - 1, BLOCK, n - 1):
        alone = draw_faces(Looks(*(f[i : i + 1] for f in looks)), Muscles(*(f[i : i + 1] for f in muscles)), 16)
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-5)


def test_place_tilt_and_light():
    def moved(**changes):
        return draw_faces(one(**changes), AT_REST, 32)[0]

    still = moved()
    # Two pixels to the right and one down: 4 / 32 and 2 / 32 of two halves. The face moves with it, not the background.
    there = moved(x=4 / 32, y=2 / 32)
    np.testing.assert_allclose(there[12:20, 12:22], still[11:19, 10:20], atol=1e-4)
    assert (moved(level=0.5) / still).max() < 0.501
    lit = moved(slope=0.5, from_side=0.0)
    assert (lit[16, 26] > still[16, 26]).all()
    assert (lit[16, 6] < still[16, 6]).all()

    # An upright face is its own mirror image but for the nose's shadow and the hair behind; a tilted one is not.
    def asymmetry(face):
        inside = face[10:26, 10:22]
        return abs(inside - inside[:, ::-1]).mean()

    assert asymmetry(still) < 0.02
    assert asymmetry(moved(tilt=0.2)) > 2 * asymmetry(still)


def test_edges_are_smooth():
    """Covered area grows evenly when the head moves by fractions of a pixel."""
    skin = np.array([draw_faces(one(x=step / 160), AT_REST, 32)[0, 12, 23] for step in range(-12, 13)])
    share = (skin - skin[0]) / (skin[-1] - skin[0])
    assert (np.diff(share, axis=0) > -0.01).all()
    assert abs(np.diff(share, axis=0)).max() < 0.2


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_move_what_they_should(expression):
    n = 400
    muscles = draw_muscles(np.random.default_rng(0), np.full(n, EXPRESSIONS.index(expression)))
    sign = {"happy": (1, 0, 0), "sad": (-1, 1, 0), "surprised": (0, 0, 1), "angry": (-1, -1, -1)}[expression]
    moved = (muscles.curve, muscles.slant, muscles.lift)
    for values, expected, unit in zip(moved, sign, (0.05, 0.03, 0.03), strict=True):
        if expected:
            assert (np.sign(values) == expected).mean() > 0.9
            assert abs(values.mean()) > unit
        else:
            assert abs(values.mean()) < unit
    assert (muscles.opening >= 0).all()
    assert (muscles.opening > 0.05).mean() == pytest.approx(
        {"happy": 0.6, "sad": 0, "surprised": 1, "angry": 0.3}[expression], abs=0.12
    )


def test_the_corners_of_the_mouth_go_up():
    """Dark pixels of a smiling mouth lie higher at the corners than in the middle, of a sad one lower."""

    def height_of_mouth(curve):
        drawn = draw_faces(one(mouth=0.5), AT_REST._replace(curve=np.array([curve], np.float32)), 64)[0].mean(-1)
        part = 1 - drawn[37:49, 26:39]  # the lower face
        part = part - part.min(axis=0)
        weight = np.where(part > 0.5 * part.max(), part, 0)
        rows = np.arange(len(part))[:, None]
        height = (weight * rows).sum(0) / np.maximum(weight.sum(0), 1e-9)
        seen = np.flatnonzero(weight.sum(0) > 0)
        return height[seen[len(seen) // 2]] - (height[seen[0]] + height[seen[-1]]) / 2

    assert height_of_mouth(0.2) > 2
    assert height_of_mouth(-0.2) < -2


def test_skin_goes_from_light_to_dark():
    tones = skin_colour(np.linspace(0, 1, 20).astype(np.float32))
    assert (np.diff(tones.sum(1)) < 0).all()
    np.testing.assert_allclose(tones[[0, -1]], [[0.98, 0.83, 0.73], [0.27, 0.17, 0.12]], atol=1e-6)


def test_identities_vary():
    looks = draw_looks(np.random.default_rng(0), 1000, glasses=0.4)
    assert abs(looks.glasses.mean() - 0.4) < 0.06
    assert 0.05 < (looks.volume < 0).mean() < 0.2
    assert 0.15 < (looks.beard > 0).mean() < 0.35
    for name, field in looks._asdict().items():
        assert field.shape[0] == 1000
        assert field.dtype == (bool if name == "glasses" else np.float32)
        assert name in ("glasses",) or np.ptp(field) > 0.02
