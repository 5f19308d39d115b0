"""Memory of a graphics device, shared through a dma-buf. The device is emulated."""

from __future__ import annotations

from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import I32, U64
from nicemu.pyverbs._resource import Resource


class DmaBuf(Resource):
    """A buffer of `size` zeroed bytes of GPU number `gpu` (there is one, 0), in its own memory or, with `gtt`, in the
    host's. Closing it closes the MRs of it.

    PyverbsRDMAError: ENOENT (no such GPU), EINVAL (no size), ENOMEM, EMFILE.
    """

    __slots__ = ("_drm_fd", "_fd", "_size")
    _fd: int
    _drm_fd: int
    CHILDREN = ("dmabuf_mrs",)

    def __init__(self, size: int, gpu: int = 0, gtt: int = 0) -> None:
        super().__init__()
        self._kernel = _kernel.endpoint()
        self._size = U64(size)
        try:
            buffer = self._kernel.process.gem_create(self._size, I32(gpu), bool(I32(gtt)))
        except OSError as error:
            raise _kernel.failed(f"Failed to allocate dmabuf of size {size} on gpu {gpu}", error) from error
        self._handle, self._fd, self._drm_fd = buffer.handle, buffer.dma_buf.fd, buffer.drm_fd

    def _destroy(self, handle: int) -> None:
        try:
            self._kernel.process.gem_close(handle)
        except OSError as error:
            raise _kernel.failed("Failed to close dmabuf", error) from error

    @property
    def fd(self) -> int:
        """The dma-buf's descriptor, for `DmaBufMR` and other importers; `os.dup` of it will do. It can be mapped."""
        return self._fd

    @property
    def drm_fd(self) -> int:
        """A descriptor that maps the buffer at `map_offset`."""
        return self._drm_fd

    @property
    def map_offset(self) -> int:
        """Where `drm_fd` maps the buffer."""
        return 0

    @property
    def handle(self) -> int:
        """The GPU's handle of the buffer; 0 when closed."""
        return self._handle or 0

    @property
    def size(self) -> int:
        """Bytes asked for; the buffer has whole pages."""
        return self._size
