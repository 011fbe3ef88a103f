# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

import signal

# A shell's background job ignores it, and so would all that tests start and then interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
