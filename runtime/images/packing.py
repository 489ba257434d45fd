"""A layer's tree packed as registries have it: OCI's tar, in gzip, the same tree always the same bytes.

It is packed in pieces of 4 MiB, each a gzip member of its own, which together are one gzip file (RFC 1952, 2.2): so as
many are packed at a time as there are processors, and how many there are makes no difference to the bytes.
"""

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.manifest import Descriptor
from dayfly.runtime.images.streams import Progress, ProgressCallback
from dayfly.runtime.images.treetar import TreeTar

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MEMBER_BYTES = 4 << 20
_LEVEL = 5


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """What was packed: its descriptor, and the digest of what is in it."""

    descriptor: Descriptor
    diff_id: str


def pack(
    tree: str, target: str, progress: ProgressCallback | None = None, latest_second: int | None = None
) -> PackedLayer:
    """Pack the layer in overlay's form at `tree` into the new file `target`. Raises ImageError, OSError."""
    packed, plain, size = hashlib.sha256(), hashlib.sha256(), 0
    with ExitStack() as stack:
        root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        told = Progress(progress, None)
        archive = TreeTar(root, tree, told, ImportLimits().depth, is_layer=True, latest_second=latest_second)
        file = stack.enter_context(open(target, "xb"))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))))
        for member in _in_order(pool, _members(archive, plain)):
            packed.update(member)
            file.write(member)
            size += len(member)
    digest = f"sha256:{packed.hexdigest()}"
    return PackedLayer(Descriptor(GZIP_LAYER, digest, size), f"sha256:{plain.hexdigest()}")


def _members(archive: TreeTar, plain: "hashlib._Hash") -> Iterator[bytes]:
    gathered = bytearray()
    while piece := archive.read():
        plain.update(piece)
        gathered += piece
        while len(gathered) >= _MEMBER_BYTES:
            yield bytes(gathered[:_MEMBER_BYTES])
            del gathered[:_MEMBER_BYTES]
    yield bytes(gathered)


def _in_order(pool: ThreadPoolExecutor, members: Iterator[bytes]) -> Iterator[bytes]:
    """Each packed, a few at a time, as they came."""
    waiting: deque[Future[bytes]] = deque()
    for member in members:
        waiting.append(pool.submit(_compress, member))
        if len(waiting) > 2 * len(os.sched_getaffinity(0)):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _compress(member: bytes) -> bytes:
    """Without a time or a name in its header (zlib writes none)."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    return deflate.compress(member) + deflate.flush()
