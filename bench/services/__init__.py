# SPDX-License-Identifier: Apache-2.0
"""Services beside their peers: a module for each, with `measure(folder: Path, quick: bool) -> figures.Found`."""
