# SPDX-License-Identifier: Apache-2.0
"""Configuration and state of dynmon."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import StringConstraints, field_validator

from polycube.core.config import TransparentCube
from polycube.model import Choice, Int64, Keyed, Named, Node, container, key, leaf, listing, state

CSource = Annotated[str, StringConstraints(min_length=1, max_length=1 << 20), Named("string", "the text of a C file, of at most 1 MiB")]
MapName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63), Named("string", "the name of a map in the code")
]
MetricName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_:][A-Za-z0-9_:]*$", max_length=255),
    Named("string", "a name of letters, digits, _ and :, not beginning with a digit"),
]
LabelName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=255), Named("string", "a name of letters, digits and _")
]


class MetricType(Choice):
    """Types of OpenMetrics."""

    COUNTER = "Counter"
    GAUGE = "Gauge"
    HISTOGRAM = "Histogram"
    SUMMARY = "Summary"
    UNTYPED = "Untyped"


class Label(Node):
    """A label that is the same for all samples of a metric."""

    name: LabelName = key("Name of the label", example="interface")
    value: str = leaf("Its value")


class OpenMetricsMetadata(Node):
    """How a metric shows in OpenMetrics."""

    help: str = leaf("What it means, for people")
    type: MetricType = leaf("Its type")
    labels: Keyed[Label] = listing("Labels of its samples")


class ExtractionOptions(Node):
    """What reading does to a map."""

    empty_on_read: bool = leaf("Whether reading takes the entries out (of arrays: zeroes them)", default=False)
    swap_on_read: bool = leaf("Whether reading gets the map as a whole while the code goes on with an empty one", default=False)


class MetricConfig(Node):
    """A map of the code that is exported."""

    name: MetricName = key("Name of the metric", example="packets_total")
    map_name: MapName = leaf("Name of the map in the code", example="packets")
    extraction_options: ExtractionOptions = container("What reading does to the map")
    open_metrics_metadata: OpenMetricsMetadata | None = container("How it shows in OpenMetrics; without, it doesn't", presence=True)


class PathConfig(Node):
    """Code for one direction."""

    name: str = leaf("What the code is called", default="")
    code: CSource = leaf("C with HANDLER(monitor), see the page on dynmon")
    metric_configs: Keyed[MetricConfig] = listing("Maps that are exported")


class DataplaneConfig(Node):
    """Code for both directions."""

    ingress_path: PathConfig | None = container("Code that sees frames on their way in", presence=True)
    egress_path: PathConfig | None = container("Code that sees frames on their way out", presence=True)

    @field_validator("ingress_path", "egress_path", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        """`{}` is no code, as in upstream's examples."""
        return None if value == {} else value


class Metric(Node):
    """What a map holds."""

    name: MetricName = key("Name of the metric")
    value: str | None = state("Contents of the map, as JSON text")
    timestamp: Int64 | None = state("When it was read, nanoseconds since 1970")


class Metrics(Node):
    """Metrics of both directions."""

    ingress_metrics: Keyed[Metric] = listing("Metrics of frames on their way in", read_only=True)
    egress_metrics: Keyed[Metric] = listing("Metrics of frames on their way out", read_only=True)


class DynmonConfig(TransparentCube):
    """Runs injected code on traffic, and exports its maps."""

    dataplane_config: DataplaneConfig = container("The code, and what of it is exported")
    metrics: Metrics = container("The metrics, read at the moment of the request", read_only=True)
    open_metrics: str | None = state("The metrics that have metadata, in the format of OpenMetrics")
