"""Jobs for the workers of the test."""

import os
import time


def hold(release):
    """Runs until the file is there."""
    while not os.path.exists(release):
        time.sleep(0.02)
