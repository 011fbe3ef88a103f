# SPDX-License-Identifier: Apache-2.0
"""Configuration of simplebridge."""

from typing import Annotated, ClassVar

from pydantic import Field

from polycube.core.config import StandardCube
from polycube.model import Action, Keyed, MacAddress, Metric, Name, Node, container, key, leaf, listing, state


class FdbEntry(Node):
    """A station: learned, or configured and then fixed to its port."""

    address: MacAddress = key("MAC address of the station", example="02:00:00:00:00:01")
    port: Name = leaf("Port behind which the station is", example="port1")
    age: int | None = state("Seconds since the station was last heard; configured stations have none")


class Flushed(Node):
    """Whether it was done."""

    flushed: bool = leaf("True: the learned stations are forgotten", default=True)


class Fdb(Node):
    """The filtering database."""

    aging_time: Annotated[int, Field(ge=1, le=1_000_000)] = leaf("Seconds after which a silent station is forgotten", default=300)
    entry: Keyed[FdbEntry] = listing("Stations", metric=Metric("gauge", "simplebridge_entry_fdb_number_entries"))
    flush: ClassVar = Action("Forgets the learned stations", output=Flushed)


class SimplebridgeConfig(StandardCube):
    """A learning Ethernet bridge."""

    fdb: Fdb = container("Filtering database")
