# SPDX-License-Identifier: Apache-2.0
"""polycubectl: a path language over whatever the daemon serves; standard library only, knows no service.

The way of a command: `grammar` turns arguments into a request (pure), `body` finds the body on standard input,
`client` sends it, `render` or `help` prints the answer. `complete` and `top` are commands of their own.
Start-up time is a feature (every TAB starts a process), so modules that cost milliseconds are imported where used.
"""
