"""The receivers: OTLP over HTTP and gRPC, checked and durable before a sender hears 200.

`server.py` runs the process; `over_http.py` and `over_grpc.py` speak the two transports and
share `intake.py`, which holds the steps of every request: admit → read → keep → settle.
"""

from llmobs.analyzer.receive.base import Check, Sink
from llmobs.analyzer.receive.intake import Limits
from llmobs.analyzer.receive.server import GRPC_PORT, HTTP_PORT, Receiver, run

__all__ = ["GRPC_PORT", "HTTP_PORT", "Check", "Limits", "Receiver", "Sink", "run"]
