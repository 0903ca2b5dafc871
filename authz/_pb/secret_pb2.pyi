from authz._pb import base_pb2 as _base_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenericSecret(_message.Message):
    __slots__ = ("secret",)
    SECRET_FIELD_NUMBER: _ClassVar[int]
    secret: _base_pb2.DataSource
    def __init__(self, secret: _Optional[_Union[_base_pb2.DataSource, _Mapping]] = ...) -> None: ...

class Secret(_message.Message):
    __slots__ = ("name", "generic_secret")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERIC_SECRET_FIELD_NUMBER: _ClassVar[int]
    name: str
    generic_secret: GenericSecret
    def __init__(self, name: _Optional[str] = ..., generic_secret: _Optional[_Union[GenericSecret, _Mapping]] = ...) -> None: ...
