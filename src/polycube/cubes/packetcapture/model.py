# SPDX-License-Identifier: Apache-2.0
"""Configuration and state of packetcapture."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import AfterValidator, StringConstraints

from polycube.core.config import TransparentCube
from polycube.model import Action, Choice, Int32, Metric, Named, Node, Uint16, Uint32, Uint64, container, leaf, state


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        raise ValueError("no power of two")
    return number


Snaplen = Annotated[int, Ge(16), Le(262144), Named("uint32", "a number of bytes from 16 to 262144")]
Expression = Annotated[str, StringConstraints(max_length=65535), Named("string", "an expression as of pcap-filter(7), or all")]
Prefix = Annotated[
    str,
    StringConstraints(pattern=r"^(/[^\x00]*[^/\x00])?$", max_length=3072),
    Named("string", "an absolute path, without an ending", "/var/tmp/capture"),
]
Megabytes = Annotated[int, Ge(1), Le(1 << 20), Named("uint32", "a number of MiB from 1 to 1048576")]
Files = Annotated[int, Ge(1), Le(100000), Named("uint32", "a number of files from 1 to 100000")]
Buffer = Annotated[int, Ge(1), Le(1024), AfterValidator(_power_of_two), Named("uint32", "a power of two from 1 to 1024, MiB")]


class Directions(Choice):
    """Which frames are captured."""

    INGRESS = "INGRESS"
    EGRESS = "EGRESS"
    BIDIRECTIONAL = "BIDIRECTIONAL"
    OFF = "OFF"


class Rotation(Node):
    """When a file is closed and the next one begun, and how many stay."""

    size: Megabytes = leaf("MiB after which the next file is begun", default=100)
    time: Uint32 = leaf("Seconds after which the next file is begun; 0: never", default=0)
    files: Files = leaf("Files that are kept; the oldest one goes", default=10)


class GlobalHeader(Node):
    """The header of a pcap file with the packets of network mode."""

    magic: Uint32 | None = state("Magic number of pcap files with microseconds")
    version_major: Uint16 | None = state("Version of the format", name="version_major")
    version_minor: Uint16 | None = state("Version of the format", name="version_minor")
    thiszone: Int32 | None = state("Always 0: times are UTC")
    sigfigs: Uint32 | None = state("Always 0")
    snaplen: Uint32 | None = state("Bytes of a packet that are kept at most")
    linktype: Uint32 | None = state("Always 1: Ethernet")


class Packet(Node):
    """The next packet of network mode; reading it takes it out."""

    capturelen: Uint32 | None = state("Bytes that were kept")
    packetlen: Uint32 | None = state("Bytes on the wire")
    timestamp_seconds: Uint32 | None = state("When it passed, seconds since 1970")
    timestamp_microseconds: Uint32 | None = state("and microseconds")
    rawdata: str | None = state("Its bytes, each as the character with that number")


class Statistics(Node):
    """What became of the packets."""

    taken: Uint64 | None = state("Packets that the filter took", metric=Metric("counter"))
    lost: Uint64 | None = state("Packets of them lost since the buffer was full", metric=Metric("counter"))
    written: Uint64 | None = state("Packets written to files, by this process", metric=Metric("counter"))
    unwritten: Uint64 | None = state("Packets that could not be written to files", metric=Metric("counter"))
    queued: Uint64 | None = state("Packets of network mode that wait to be read", metric=Metric("gauge"))
    unqueued: Uint64 | None = state("Packets of network mode that found the queue full", metric=Metric("counter"))
    streams: Uint64 | None = state("Streams that are read now", metric=Metric("gauge"))
    unstreamed: Uint64 | None = state("Packets that readers of streams were too slow for", metric=Metric("counter"))


class PacketcaptureConfig(TransparentCube):
    """Captures packets into files, streams, and a queue."""

    capture: Directions = leaf("Which direction is captured", default=Directions.OFF)
    filter: Expression = leaf("Which packets: an expression as of tcpdump, or all; none if empty", default="", example="tcp port 80")
    snaplen: Snaplen = leaf("Bytes of a packet that are kept at most", default=262144)
    networkmode: bool = leaf("Whether packets are queued and read one by one, instead of written to files", default=False)
    dump: Prefix = leaf("Files are called this, a number and .pcapng; empty: a name in the folder for temporary files", default="")
    rotation: Rotation = container("When the next file is begun")
    anonimize: bool = leaf("Whether MAC and IP addresses are replaced by pseudonyms", default=False)
    buffer: Buffer = leaf("MiB of the buffer between data plane and control plane", default=8, init_only=True)
    file: str | None = state("The file that is written now")
    globalheader: GlobalHeader = container("The header of a pcap file with the packets of network mode", read_only=True)
    packet: Packet = container("The next packet of network mode", read_only=True)
    statistics: Statistics = container("What became of the packets", read_only=True)

    stream: ClassVar = Action("Packets as they come, a pcapng file without end", media="application/x-pcapng")
