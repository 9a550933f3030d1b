"""What is used of pymilvus. Imported here alone, so that how it is imported is decided in one place."""

from driftline.adapters.pandas_deferred import pandas_deferred

with pandas_deferred():
    from pymilvus import DataType, MilvusClient, exceptions
    from pymilvus.client.grpc_handler import GrpcHandler
    from pymilvus.client.types import LoadState
    from pymilvus.exceptions import ErrorCode, MilvusException
    from pymilvus.grpc_gen import common_pb2

__all__ = [
    "DataType",
    "ErrorCode",
    "GrpcHandler",
    "LoadState",
    "MilvusClient",
    "MilvusException",
    "common_pb2",
    "exceptions",
]
