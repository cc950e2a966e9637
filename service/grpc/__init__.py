"""The gRPC door: `tierwise.v1.Relevance`."""
