# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

import signal

from hypothesis import settings

# What is generated is the same in each run, so that a run says something of the change under test;
# --hypothesis-profile=search looks for what no run has met yet.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("same")

# A shell's background job ignores it, and so would all that tests start and then interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
