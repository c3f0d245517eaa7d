"""Jobs for the workers of the test."""

import os
import time


def hold(release):
    """Runs until the file exists."""
    while not os.path.exists(release):
        time.sleep(0.02)
