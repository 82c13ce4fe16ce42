"""`python -m trainer` is `cohort`; launchers such as torchrun start it like this."""

import sys

from trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
