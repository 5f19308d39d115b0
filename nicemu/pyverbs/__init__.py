"""The module names, classes and behaviour of rdma-core's pyverbs, on the emulated NIC.

`nicemu run` and the pytest plug-in make `import pyverbs` mean this package. Any import of it brings the modules below,
which programs expect as attributes after `import pyverbs.device`, whichever release they were written for.
"""

import nicemu.pyverbs.addr
import nicemu.pyverbs.base
import nicemu.pyverbs.cmid
import nicemu.pyverbs.cq
import nicemu.pyverbs.device
import nicemu.pyverbs.dmabuf
import nicemu.pyverbs.enums
import nicemu.pyverbs.flow
import nicemu.pyverbs.librdmacm_enums
import nicemu.pyverbs.mr
import nicemu.pyverbs.pd
import nicemu.pyverbs.qp
import nicemu.pyverbs.srq
import nicemu.pyverbs.wq
import nicemu.pyverbs.wr
import nicemu.pyverbs.xrcd  # noqa: F401
