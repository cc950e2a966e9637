"""Generate the Python code of the gRPC protocol from its .proto file."""

from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = Path("service/grpc/v1/relevance.proto")


def generate(folder: Path) -> None:
    """Write the messages, their types and the stubs, each at its module's place below a folder.

    Raises:
        RuntimeError: the protocol has a mistake; protoc has printed where.
    """
    site = Path(grpc_tools.__file__).parents[1]  # google/rpc/status.proto is installed beside its module
    sources = [f"-I{path}" for path in (ROOT, site, site / "grpc_tools" / "_proto")]
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = ["protoc", *sources, *outputs, str(ROOT / PROTO)]
    if protoc.main(command) != 0:  # type: ignore[no-untyped-call] # grpc_tools is annotated in part
        raise RuntimeError(f"{PROTO} cannot be compiled")


if __name__ == "__main__":
    generate(ROOT)
