"""The life of an index: exact, building, indexed, and back; settings; what readers see."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from django.db import connection
from pytest_django.fixtures import SettingsWrapper

from embeddings import indexes, store
from embeddings.demo import rows_of_demo
