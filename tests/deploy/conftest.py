"""Images of hospitals, drawn once."""

import pytest
from hospitals import draw


@pytest.fixture(scope='session')
def drawn_hospitals(tmp_path_factory):
    return draw(tmp_path_factory.mktemp('hospitals'))
