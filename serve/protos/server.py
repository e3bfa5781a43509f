"""Register a servicer with a gRPC server.

Serve imports this into its controller and its proxies as well: with the model's libraries behind it
they took 160 MB more.
"""

from __future__ import annotations

from typing import Any

import grpc

from serve.protos import ranking_pb2 as pb

_RANKING = pb.DESCRIPTOR.services_by_name["Ranking"]
SERVICE: str = _RANKING.full_name


def add_to_server(servicer: Any, server: Any) -> None:
    """Register a servicer such as `serve.grpc.servicer.Rpc`; its methods get bytes.

    Serve finds this by `IMPORT_PATH`, and puts replicas in the servicer's place.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name), response_serializer=lambda answer: answer.SerializeToString()
        )
        for name in _RANKING.methods_by_name
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


IMPORT_PATH = f"{__name__}.{add_to_server.__name__}"
