"""Access: who calls, what the caller may do, and how connections are kept private. docs/access.md has the decisions.

`Access.authenticate(metadata, certificate)` is the one way in, for HTTP headers and gRPC metadata alike.
"""
