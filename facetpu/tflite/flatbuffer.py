"""Any flatbuffer, read and written by a schema that is data.

A schema is text, one table a line, its fields in the order of their numbers::

    Tensor shape:[int32] type:int8 name:string quantization:QuantizationParameters
    Buffer data:[uint8]/16 offset:uint64=1

Types are scalars, ``string``, ``bytes`` (a string that holds no text), tables, unions (which take two
field numbers), and in brackets a vector of scalars, structs, strings, bytes or tables; ``/16`` aligns
a vector's content, ``=1`` is a default, ``-`` skips a number. See https://flatbuffers.dev/internals.

Every offset and length of a file is checked before it is followed, so that a damaged or hostile file
gives an error, never a crash, and costs no more work than its size warrants.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import numpy as np

from ..errors import FacetpuError

MAX_DEPTH = 64  # tables within tables; the C++ verifier's limit
MAX_BYTES = 2**31 - 1  # offsets are read as signed by most runtimes

_FORMATS = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
_UINT16, _INT32, _UINT32 = (struct.Struct("<" + code) for code in "HiI")
_FIELD = re.compile(r"(\w+):(\[)?(\w+)\]?(?:/(\d+))?(?:=(\S+))?$")


class Field(NamedTuple):
    """One field of a table.

    ``kind`` is ``scalar``, ``array`` (a vector of scalars or structs), ``text``, ``bytes``, ``table`` or
    ``union``, and ``of`` the name of the scalar, struct, table or union; ``many`` says that it is a vector
    of texts, bytes or tables.
    """

    name: str
    slot: int
    kind: str
    of: str
    many: bool
    default: Any
    align: int


class Record:
    """One table: its fields as attributes.

    A scalar that the file leaves out has its default; an absent table, string or vector is None. Vectors
    of scalars are NumPy arrays, read-only views of the file where they come from one; vectors of tables
    are lists. ``unknown`` has the numbers of fields that the schema does not name.
    """

    __slots__ = ("unknown",)
    fields: tuple[Field, ...] = ()
    unknown: tuple[int, ...]

    def __init__(self, **values: Any) -> None:
        self.unknown = ()
        for field in self.fields:
            setattr(self, field.name, values.pop(field.name, field.default))
        if values:
            raise TypeError(f"{type(self).__name__} has no field {sorted(values)[0]!r}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in self.fields)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ((field.name, getattr(self, field.name), field.default) for field in self.fields)
        inner = ", ".join(f"{name}={_brief(value)}" for name, value, default in shown if value is not default)
        return f"{type(self).__name__}({inner})"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Schema:
    """The tables of a format.

    Args:
        tables: one table a line, as the module's docstring shows; an indented line goes on from the one
            before.
        unions: names of the tables that a union may hold, numbered from 1.
        structs: fields of each struct, as ``name:scalar``; their vectors become structured arrays.
    """

    def __init__(
        self, tables: str, unions: dict[str, str] | None = None, structs: dict[str, str] | None = None
    ) -> None:
        self.dtypes = {name: np.dtype("<" + code) for name, code in _FORMATS.items()}
        for name, text in (structs or {}).items():
            members = [member.split(":") for member in text.split()]
            self.dtypes[name] = np.dtype([(key, self.dtypes[of]) for key, of in members], align=True)
        self.unions = {name: text.split() for name, text in (unions or {}).items()}
        self.records: dict[str, type[Record]] = {}
        lines = re.sub(r"\n[ \t]+", " ", tables.strip()).splitlines()
        names = {line.split()[0] for line in lines}
        for name, *fields in (line.split() for line in lines):
            layout = tuple(self._fields(name, fields, names))
            slots = tuple(field.name for field in layout)
            self.records[name] = type(name, (Record,), {"__slots__": slots, "fields": layout})

    def new(self, table: str, **values: Any) -> Record:
        """A record of ``table`` with the given fields, the others at their defaults."""
        return self.records[table](**values)

    def _fields(self, table: str, texts: list[str], tables: set[str]) -> Iterator[Field]:
        slot = 0
        for text in texts:
            if text == "-":
                slot += 1
                continue
            match = _FIELD.match(text)
            if match is None:
                raise ValueError(f"schema: {table}: cannot read {text!r}")
            name, vector, of, align, default = match.groups()
            kind = self._kind(of, bool(vector), tables)
            value = _default(of, default) if kind == "scalar" else None
            slot += kind == "union"  # its type has the number before
            many = bool(vector) and kind != "array"
            yield Field(name, slot, kind, of, many, value, int(align or 4))
            slot += 1

    def _kind(self, of: str, vector: bool, tables: set[str]) -> str:
        if of in self.dtypes:
            return "array" if vector else "scalar"
        if of in ("string", "bytes"):
            return "text" if of == "string" else "bytes"
        if of in self.unions and not vector:
            return "union"
        if of in tables:
            return "table"
        raise ValueError(f"schema: unknown type {of!r}")


def decode(schema: Schema, root: str, data: Any, where: str, identifier: bytes = b"") -> Record:
    """The record that ``data`` holds.

    Args:
        schema: what the tables are.
        root: name of the outermost table.
        data: bytes, or anything with the buffer interface; arrays in the result are views of it.
        where: the file, for messages.
        identifier: the four bytes that must stand at offset 4; not checked where empty.

    Raises:
        FacetpuError: an offset or length leads out of ``data``, or it is nested or shared beyond what
            its size warrants.
    """
    reader = _Reader(schema, data, where)
    if identifier and bytes(reader.data[4:8]) != identifier:
        raise FacetpuError(f"{where}: lacks the mark {identifier.decode()} of a {root}; give another file")
    return reader.table(root, reader.offset(0, root), root, 0)


def encode(schema: Schema, record: Record, where: str = "the new file", identifier: bytes = b"") -> bytes:
    """``record`` as a flatbuffer; the inverse of ``decode``.

    Raises:
        FacetpuError: a value does not fit its field, the record holds fields that the schema does not
            know and which would be lost, or the file would pass 2 GiB.
    """
    writer = _Writer(schema, where)
    return writer.write(record, identifier)


class _Reader:
    """Follows the offsets of one buffer, checking each."""

    def __init__(self, schema: Schema, data: Any, where: str) -> None:
        self.schema = schema
        self.data = memoryview(data).cast("B")
        self.where = where
        # Every byte of an honest file is read once. A file in which one table stands in many places
        # would cost far more than its size: the work is bounded by it.
        self.left = len(self.data) + 4096
        self.texts: dict[int, str] = {}

    def table(self, name: str, start: int, path: str, depth: int) -> Record:
        if depth > MAX_DEPTH:
            raise self.damaged(path, "is nested too deep")
        record = self.schema.records[name]()
        vtable = start - self.number(_INT32, start, path)
        size, inline = (self.number(_UINT16, vtable + 2 * half, path) for half in (0, 1))
        if size < 4 or size % 2:
            raise self.damaged(path, "has a broken table")
        self.check(vtable, size, path)
        self.check(start, inline, path)
        slots = struct.unpack_from(f"<{size // 2 - 2}H", self.data, vtable + 4)
        fields = record.fields
        known = fields[-1].slot + 1 if fields else 0
        self.spend(8 + 2 * max(0, len(slots) - known), path)
        seen = set()
        for field in fields:
            inside = f"{path}.{field.name}"
            place = slots[field.slot] if field.slot < len(slots) else 0
            seen.add(field.slot)
            if field.kind == "union":
                seen.add(field.slot - 1)
                tag = slots[field.slot - 1] if field.slot <= len(slots) else 0
                value, lost = self.union(field, start, inline, tag, place, inside, depth)
                if lost:
                    record.unknown += (field.slot,)
            elif not place:
                continue
            else:
                width = self.schema.dtypes[field.of].itemsize if field.kind == "scalar" else 4
                self.inside(place, width, inline, inside)
                value = self.value(field, start + place, inside, depth)
            setattr(record, field.name, value)
        record.unknown += tuple(slot for slot, place in enumerate(slots) if place and slot not in seen)
        return record

    def union(
        self, field: Field, start: int, inline: int, tag: int, place: int, path: str, depth: int
    ) -> tuple[Record | None, bool]:
        """The record, and whether it is of a type that the schema does not know."""
        number = 0
        if tag:
            self.inside(tag, 1, inline, path)
            number = self.data[start + tag]
        if not number:
            return None, bool(place)
        members = self.schema.unions[field.of]
        if number > len(members):
            return None, True
        if not place:  # a type without its table: every field at its default
            return self.schema.new(members[number - 1]), False
        self.inside(place, 4, inline, path)
        return self.table(members[number - 1], self.offset(start + place, path), path, depth + 1), False

    def value(self, field: Field, position: int, path: str, depth: int) -> Any:
        if field.kind == "scalar":
            return struct.unpack_from("<" + _FORMATS[field.of], self.data, position)[0]
        start = self.offset(position, path)
        if field.kind == "array":
            return self.array(self.schema.dtypes[field.of], start, path)
        if not field.many:
            return self.item(field, start, path, depth)
        count = self.number(_UINT32, start, path)
        self.check(start + 4, 4 * count, path)
        self.spend(4 * count, path)
        places = range(start + 4, start + 4 + 4 * count, 4)
        items = ((f"{path}[{index}]", place) for index, place in enumerate(places))
        return [self.item(field, self.offset(place, name), name, depth) for name, place in items]

    def item(self, field: Field, start: int, path: str, depth: int) -> Any:
        if field.kind == "table":
            return self.table(field.of, start, path, depth + 1)
        if field.kind == "bytes":
            return self.array(self.schema.dtypes["uint8"], start, path)
        if start not in self.texts:
            raw = self.array(self.schema.dtypes["uint8"], start, path).tobytes()
            self.spend(len(raw), path)
            self.texts[start] = raw.decode("utf-8", "surrogateescape")
        return self.texts[start]

    def array(self, dtype: Any, start: int, path: str) -> np.ndarray:
        count = self.number(_UINT32, start, path)
        self.check(start + 4, count * dtype.itemsize, path)
        array = np.frombuffer(self.data, dtype, count, start + 4) if count else np.empty(0, dtype)
        array.flags.writeable = False
        return array

    def offset(self, position: int, path: str) -> int:
        return position + int(self.number(_UINT32, position, path))

    def number(self, form: struct.Struct, position: int, path: str) -> int:
        self.check(position, form.size, path)
        return int(form.unpack_from(self.data, position)[0])

    def check(self, start: int, size: int, path: str) -> None:
        if start < 0 or start + size > len(self.data):
            raise self.damaged(path, "leads out of the file")

    def inside(self, place: int, width: int, inline: int, path: str) -> None:
        if place < 4 or place + width > inline:
            raise self.damaged(path, "leads out of its table")

    def spend(self, cost: int, path: str) -> None:
        self.left -= cost
        if self.left < 0:
            raise self.damaged(path, "is repeated beyond reason")

    def damaged(self, path: str, how: str) -> FacetpuError:
        return FacetpuError(f"{self.where}: {path} {how}: it is damaged or cut short; get it again")


class _Writer:
    """Writes tables front to back: each stands before what it points to, so offsets are patched in."""

    def __init__(self, schema: Schema, where: str) -> None:
        self.schema = schema
        self.where = where
        self.out = bytearray()
        self.vtables: dict[bytes, int] = {}
        self.pending: deque[tuple[int, Field, Any, str]] = deque()

    def write(self, record: Record, identifier: bytes) -> bytes:
        name = type(record).__name__
        self.out += bytes(4) + identifier
        self.pending.append((0, Field("", 0, "table", name, False, None, 4), record, name))
        while self.pending:
            self.value(*self.pending.popleft())
            if len(self.out) > MAX_BYTES:
                raise FacetpuError(
                    f"{self.where}: would pass 2 GiB, which no runtime reads; use a smaller model"
                )
        return bytes(self.out)

    def value(self, patch: int, field: Field, value: Any, path: str) -> None:
        """Append what stands at ``patch`` as an offset."""
        if field.many:
            start = self.start(patch, 4)
            self.out += _UINT32.pack(len(value)) + bytes(4 * len(value))
            single = field._replace(many=False)
            for index, item in enumerate(value):
                self.pending.append((start + 4 + 4 * index, single, item, f"{path}[{index}]"))
        elif field.kind in ("table", "union"):
            self.table(patch, value, path)
        elif field.kind == "text":
            text = str(value).encode("utf-8", "surrogateescape")
            self.vector(patch, text, len(text), field.align)
            self.out += b"\0"
        else:
            dtype = self.schema.dtypes["uint8" if field.kind == "bytes" else field.of]
            array = self.array(value, dtype, path)
            raw = array.view(np.uint8).data
            self.vector(patch, raw, len(array), max(field.align, dtype.alignment))
            if field.kind == "bytes":
                self.out += b"\0"

    def table(self, patch: int, record: Record, path: str) -> None:
        if record.unknown:
            raise FacetpuError(
                f"{self.where}: {path} holds field {record.unknown[0]}, which this facetpu does not know and "
                "would lose; upgrade facetpu"
            )
        cells = sorted(self.cells(record, path), key=lambda cell: -cell.size)
        places: dict[int, int] = {}
        end = 4
        for cell in cells:
            end += -end % cell.size
            places[cell.slot] = end
            end += cell.size
        count = max(places) + 1 if places else 0
        vtable = struct.pack(f"<{count + 2}H", 4 + 2 * count, end, *(places.get(i, 0) for i in range(count)))
        if vtable not in self.vtables:
            self.out += bytes(-len(self.out) % 2)
            self.vtables[vtable] = len(self.out)
            self.out += vtable
        start = self.start(patch, max([4] + [cell.size for cell in cells]))
        self.out += _INT32.pack(start - self.vtables[vtable]) + bytes(end - 4)
        for cell in cells:
            place = start + places[cell.slot]
            if cell.raw is None:
                self.pending.append((place, cell.field, cell.value, f"{path}.{cell.field.name}"))
            else:
                self.out[place : place + cell.size] = cell.raw

    def cells(self, record: Record, path: str) -> Iterator[_Cell]:
        """What the table holds: every field that is not at its default."""
        for field in record.fields:
            value = getattr(record, field.name)
            if value is None or (field.kind == "scalar" and value == field.default):
                continue
            if field.kind == "scalar":
                raw = self.scalar(field, value, path)
                yield _Cell(field.slot, len(raw), raw, field, value)
                continue
            if field.kind == "union":
                members = self.schema.unions[field.of]
                kind = type(value).__name__
                if kind not in members:
                    raise FacetpuError(f"{self.where}: {path}.{field.name} cannot be a {kind}")
                yield _Cell(field.slot - 1, 1, bytes([members.index(kind) + 1]), field, value)
            yield _Cell(field.slot, 4, None, field, value)

    def scalar(self, field: Field, value: Any, path: str) -> bytes:
        try:
            return struct.pack("<" + _FORMATS[field.of], value)
        except (struct.error, OverflowError):
            raise FacetpuError(
                f"{self.where}: {path}.{field.name} is {value!r}, which is no {field.of}"
            ) from None

    def array(self, value: Any, dtype: Any, path: str) -> np.ndarray:
        """``value`` as a vector of ``dtype``, refused where a number would change."""
        array = np.frombuffer(value, np.uint8) if isinstance(value, (bytes, bytearray)) else np.asarray(value)
        if array.dtype != dtype:
            fitted = array.astype(dtype)
            if dtype.kind in "iub" and not np.array_equal(fitted, array):
                raise FacetpuError(f"{self.where}: {path} holds numbers that are no {dtype}")
            array = fitted
        if array.ndim != 1:
            raise FacetpuError(f"{self.where}: {path} has {array.ndim} dimensions; flatten it")
        return np.ascontiguousarray(array)

    def vector(self, patch: int, raw: Any, count: int, align: int) -> None:
        self.out += bytes(-(len(self.out) + 4) % align)
        self.start(patch, 4)
        self.out += _UINT32.pack(count)
        self.out += raw

    def start(self, patch: int, align: int) -> int:
        """Where the next value begins, aligned; the offset to it is written at ``patch``."""
        self.out += bytes(-len(self.out) % align)
        _UINT32.pack_into(self.out, patch, len(self.out) - patch)
        return len(self.out)


class _Cell(NamedTuple):
    """What one field takes in its table: its bytes, or four for an offset to ``value`` (``raw`` None)."""

    slot: int
    size: int
    raw: bytes | None
    field: Field
    value: Any


def _default(of: str, text: str | None) -> Any:
    if of == "bool":
        return text == "true"
    return (float if of.startswith("float") else int)(text or 0)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (left is None) == (right is None) and np.array_equal(left, right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= 16 else f"<{value.size} {value.dtype}>"
    return repr(value)
