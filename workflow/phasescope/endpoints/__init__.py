"""The same prompts through servers and services, and Inspect AI's logs of them."""

from phasescope.endpoints.asked import Asked, Outcome, grade_all, table_rows
from phasescope.endpoints.compared import Paired, compare
from phasescope.endpoints.logs import read_log, write_log
from phasescope.endpoints.stage import EndpointStage, endpoint_of

__all__ = [
    "Asked",
    "EndpointStage",
    "Outcome",
    "Paired",
    "compare",
    "endpoint_of",
    "grade_all",
    "read_log",
    "table_rows",
    "write_log",
]
