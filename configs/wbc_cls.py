"""White blood cells of five laboratories: classification, leave one center out."""

from configs import common


def get_config():
    c = common.base()
    return c
