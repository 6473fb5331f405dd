"""What Weights & Biases keeps offline: the LevelDB log format, with a record of its own protocol in each entry."""

import json
import struct
from pathlib import Path

BLOCK = 32768


def entries(content: bytes) -> list[bytes]:
    """The entries of a log: blocks of records, each with checksum, length and kind; an entry may span several."""
    out, parts, place = [], [], 7  # behind the magic number and the version
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if kind == 0:
            break
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            out.append(b"".join(parts))
            parts = []
    return out


def read(path: Path) -> dict[str, list]:
    """``id`` of the run, ``config`` and ``summary`` as set, ``history`` as rows, ``files`` of one record."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {"id": [], "config": [], "summary": [], "history": [], "files": []}

    def values(items):
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    for entry in entries(path.read_bytes()):
        record = Record.FromString(entry)
        match record.WhichOneof("record_type"):
            case "run":
                found["id"].append(record.run.run_id)
                found["config"].append(values(record.run.config.update))
            case "config":
                found["config"].append(values(record.config.update))
            case "summary":
                found["summary"].append(values(record.summary.update))
            case "history":
                found["history"].append(values(record.history.item))
            case "files":
                found["files"] += [file.path for file in record.files.files]
    return found
