"""A reader of pprof files that knows nothing of ours: protobuf's own, with the published field numbers."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# github.com/google/pprof/blob/main/proto/profile.proto: message → field → (number, type, repeated).
MESSAGES = {
    "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
    "Label": {"key": (1, "int64"), "str": (2, "int64"), "num": (3, "int64"), "num_unit": (4, "int64")},
    "Sample": {
        "location_id": (1, "uint64", True),
        "value": (2, "int64", True),
        "label": (3, "Label", True),
    },
    "Mapping": {
        "id": (1, "uint64"),
        "memory_start": (2, "uint64"),
        "memory_limit": (3, "uint64"),
        "file_offset": (4, "uint64"),
        "filename": (5, "int64"),
        "build_id": (6, "int64"),
        "has_functions": (7, "bool"),
        "has_filenames": (8, "bool"),
        "has_line_numbers": (9, "bool"),
        "has_inline_frames": (10, "bool"),
    },
    "Line": {"function_id": (1, "uint64"), "line": (2, "int64"), "column": (3, "int64")},
    "Location": {
        "id": (1, "uint64"),
        "mapping_id": (2, "uint64"),
        "address": (3, "uint64"),
        "line": (4, "Line", True),
        "is_folded": (5, "bool"),
    },
    "Function": {
        "id": (1, "uint64"),
        "name": (2, "int64"),
        "system_name": (3, "int64"),
        "filename": (4, "int64"),
        "start_line": (5, "int64"),
    },
    "Profile": {
        "sample_type": (1, "ValueType", True),
        "sample": (2, "Sample", True),
        "mapping": (3, "Mapping", True),
        "location": (4, "Location", True),
        "function": (5, "Function", True),
        "string_table": (6, "string", True),
        "drop_frames": (7, "int64"),
        "keep_frames": (8, "int64"),
        "time_nanos": (9, "int64"),
        "duration_nanos": (10, "int64"),
        "period_type": (11, "ValueType"),
        "period": (12, "int64"),
        "comment": (13, "int64", True),
        "default_sample_type": (14, "int64"),
    },
}


def _message_class() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "int64": kinds.TYPE_INT64,
        "uint64": kinds.TYPE_UINT64,
        "bool": kinds.TYPE_BOOL,
        "string": kinds.TYPE_STRING,
    }
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="perftools", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, *repeated) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            if kind in scalars:
                made.type = scalars[kind]
            else:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".perftools.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.Profile"))


class Read:
    """A pprof file, decoded, with the references followed."""

    def __init__(self, data: bytes) -> None:
        self.message = _message_class().FromString(gzip.decompress(data))
        message = self.message
        self.text = list(message.string_table)
        self.kinds = [(self.text[kind.type], self.text[kind.unit]) for kind in message.sample_type]
        self.comments = [self.text[number] for number in message.comment]
        functions = {function.id: function for function in message.function}
        self.locations = {
            place.id: (functions[place.line[0].function_id], place.line[0].line) for place in message.location
        }

    def name(self, location: int) -> str:
        return self.text[self.locations[location][0].name]

    @property
    def samples(self) -> list[tuple[list[str], list[int], dict[str, str]]]:
        """Names of the calls, the innermost first; values; labels."""
        return [
            (
                [self.name(location) for location in sample.location_id],
                list(sample.value),
                {self.text[label.key]: self.text[label.str] for label in sample.label},
            )
            for sample in self.message.sample
        ]

    def flat(self) -> dict[str, int]:
        """Function → what it counts for itself, of the last kind."""
        found: dict[str, int] = {}
        for stack, values, _ in self.samples:
            found[stack[0]] = found.get(stack[0], 0) + values[-1]
        return found

    def top(self) -> str:
        """The function that counts most."""
        flat = self.flat()
        return max(flat, key=flat.__getitem__)


@pytest.fixture(scope="session")
def read_pprof() -> type[Read]:
    """Decodes a pprof file."""
    return Read
