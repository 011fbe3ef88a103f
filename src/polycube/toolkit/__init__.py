# SPDX-License-Identifier: Apache-2.0
"""What several services' control planes need, each in one place: engines and views that belong to no single cube."""
