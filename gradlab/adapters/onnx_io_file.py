"""An ONNX file, looked through before it is parsed: sizes, nesting, and no data in other files.

A protobuf message can be far larger in memory than in its file, and names of other files can stand at any depth of it.
So its wire format is walked first, along onnx's own descriptors, without keeping anything.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

from gradlab._memory import refuse_above
from gradlab.adapters._library import load_library
from gradlab.errors import DTypeError, FormatError, UnsafeFileError

MAX_FIELDS = 300_000
"""Fields of the whole model, tensors' data not counted: what a parser may have to build objects for."""
MAX_DEPTH = 64
MAX_TEXT = 2**20
"""Bytes of one string."""
MAX_BYTES = 2**31 - 1
"""What protobuf itself can hold."""
TENSOR, EXTERNAL_DATA, DATA_LOCATION = "onnx.TensorProto", 13, 14
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


def load_model(source: Any, max_memory: int | None) -> tuple[str, Any]:
    """What messages call the file, and its onnx.ModelProto: from a path, the bytes of a file, or a ModelProto.

    Errors: FormatError, UnsafeFileError, ResourceRefused, MissingLibrary.
    """
    onnx = load_library("onnx", "onnx", "reading an ONNX model")
    if isinstance(source, onnx.ModelProto):
        return _parsed("the ONNX model", io.BytesIO(source.SerializeToString()), max_memory, onnx)
    if isinstance(source, bytes):
        return _parsed("the ONNX model", io.BytesIO(source), max_memory, onnx)
    if not isinstance(source, (str, os.PathLike)):
        raise DTypeError(f"the ONNX model is a {type(source).__name__}; expected a path, bytes or an onnx.ModelProto")
    name = repr(os.fspath(source))
    try:
        if not Path(source).is_file():
            raise FormatError(f"{name}: no such regular file; expected an ONNX model")
        with open(source, "rb") as stream:
            return _parsed(name, stream, max_memory, onnx)
    except (OSError, ValueError) as error:
        raise FormatError(f"{name}: cannot be read ({error}); expected an ONNX model") from error


def _parsed(name: str, stream: BinaryIO, max_memory: int | None, onnx: Any) -> tuple[str, Any]:
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise FormatError(f"{name}: {size} bytes; ONNX models without external data have at most {MAX_BYTES}")
    refuse_above(3 * size, max_memory, f"{name}: reading {size} bytes", "give a larger max_memory")
    stream.seek(0)
    try:
        _Walk(name, stream).message(onnx.ModelProto.DESCRIPTOR, size, 0)
    except EOFError as error:
        raise FormatError(f"{name}: cut short; a field reaches beyond the end of the file") from error
    stream.seek(0)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(stream.read(size))
    except Exception as error:  # protobuf raises its own error, of a class that moves between its versions
        raise FormatError(f"{name}: no ONNX model ({error}); expected the protobuf that onnx.save writes") from error
    if not model.HasField("graph"):
        raise FormatError(f"{name}: holds no graph; expected an ONNX model, with its initializers")
    return name, model


class _Walk:
    """Reads tags and lengths of one message after the other, and skips all contents."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name, self.stream, self.fields = name, stream, 0
        self.schemas: dict[str, tuple[dict[int, Any], set[int]]] = {}

    def message(self, schema: Any, end: int, depth: int) -> None:
        """Walk over the message of type `schema` that ends at the offset `end`."""
        if depth > MAX_DEPTH:
            raise FormatError(f"{self.name}: nested more than {MAX_DEPTH} deep")
        if schema.full_name not in self.schemas:
            own = schema.fields_by_number
            nested = {number: field.message_type for number, field in own.items() if field.message_type is not None}
            self.schemas[schema.full_name] = nested, {number for number, field in own.items() if field.type == field.TYPE_STRING}
        (nested, texts), is_tensor = self.schemas[schema.full_name], schema.full_name == TENSOR
        stream = self.stream
        while (at := stream.tell()) < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise FormatError(f"{self.name}: more than {MAX_FIELDS} fields; expected a model of recurrent layers")
            tag = self.varint()
            number, wire = tag >> 3, tag & 7
            value = self.varint() if wire in (VARINT, DELIMITED) else 0
            if is_tensor and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                raise UnsafeFileError(
                    f"{self.name}: a tensor's data is in another file, which gradlab never opens; "
                    "save the model in one file: onnx.save(onnx.load(path), path, save_as_external_data=False)"
                )
            length = {VARINT: 0, FIXED64: 8, DELIMITED: value, FIXED32: 4}.get(wire)
            if length is None or number == 0:
                raise FormatError(f"{self.name}: byte {at} is no protobuf field; expected an ONNX model")
            stop = stream.tell() + length
            if stop > end:
                raise EOFError
            if wire == DELIMITED and number in nested:
                self.message(nested[number], stop, depth + 1)
            elif wire == DELIMITED and number in texts:
                self.text(length)
            elif length:
                stream.seek(stop)
        if stream.tell() != end:
            raise EOFError

    def text(self, length: int) -> None:
        """A string, which the parser would take as it is."""
        if length > MAX_TEXT:
            raise FormatError(f"{self.name}: a string of {length} bytes; expected at most {MAX_TEXT}")
        try:
            self.stream.read(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.name}: a string is not UTF-8 ({error}); expected an ONNX model") from error

    def varint(self) -> int:
        """A base-128 number of at most 10 bytes."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.stream.read(1)
            if not byte:
                raise EOFError
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value
        raise FormatError(f"{self.name}: an unfinished number; expected an ONNX model")
