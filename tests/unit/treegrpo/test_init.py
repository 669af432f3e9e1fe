"""The import root: public names, loaded on first use."""

import pytest

import treegrpo


def test_public_names_are_listed_and_load() -> None:
    assert treegrpo.__all__ == ["TrainConfig", "Trainer", "__version__"]
    assert set(treegrpo.__all__) <= set(dir(treegrpo))
    for name in treegrpo.__all__:
        assert getattr(treegrpo, name)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'treegrpo' has no attribute 'Trainr'"):
        treegrpo.Trainr  # noqa: B018  # pyright: ignore
