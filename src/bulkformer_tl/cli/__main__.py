"""``python -m bulkformer_tl.cli``, where no script is on the path."""

import sys

from bulkformer_tl.cli import main

sys.exit(main())
