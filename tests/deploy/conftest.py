"""Images of hospitals, drawn once."""

import pytest
from hospitals import draw, hospitals, tiny


@pytest.fixture(scope='session')
def drawn_hospitals(tmp_path_factory):
    return draw(tmp_path_factory.mktemp('hospitals'))


@pytest.fixture
def scaffold(tmp_path, drawn_hospitals):
    """Settings and hospitals of a method whose centers keep private states."""
    config = tiny('scaffold', tmp_path / 'store')
    config.rounds = 3
    return hospitals(drawn_hospitals, config, tmp_path), config
