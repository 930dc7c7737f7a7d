"""The settings of a release that has one application more."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS as BEFORE

INSTALLED_APPS = [*BEFORE, "tests.end_to_end.next_release"]
