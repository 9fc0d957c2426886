"""`python -m lrgls_dask.cli`, the same as `lrgls`."""

import sys

from lrgls_dask.cli.main import main

sys.exit(main())
