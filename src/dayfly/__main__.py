"""`python -m dayfly`: the same as the command `dayfly`."""

import sys

from dayfly.cli.main import main

sys.exit(main())
