"""The gRPC door: `tierwise.v1.Relevance`."""

import os

# Its C core would write lines of its own about connections that come and go. Read when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
