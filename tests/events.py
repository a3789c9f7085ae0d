"""What lies in TensorBoard's event files."""

import struct

from tensorboardX.proto.event_pb2 import Event


def scalars(folder):
    """[(round, name, value)] of all event files of a folder, in their order."""
    found = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from('<Q', data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 16 + length  # two checksums
    return found
