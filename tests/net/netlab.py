# SPDX-License-Identifier: Apache-2.0
"""What the tests of `polycube.net` do as a user or a neighbour would: run iproute2, listen on a wire."""

import socket
import subprocess


def sh(*commands: str) -> None:
    """Run commands of iproute2 one by one, as a user would."""
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def received(sock: socket.socket, marker: bytes, count: int) -> list[bytes]:
    """Frames holding `marker`: waits for so many, and then for more until it is silent for a moment."""
    frames: list[bytes] = []
    while True:
        sock.settimeout(10 if len(frames) < count else 0.1)
        try:
            frame, address = sock.recvfrom(70000)
        except TimeoutError:
            return frames
        if marker in frame and address[2] != socket.PACKET_OUTGOING:
            frames.append(frame)
