"""What holds for all tests."""

from __future__ import annotations

import signal

# Started by `nohup ... &`, a process ignores Ctrl-C and so do the processes that it starts: tests which press it in one
# of theirs would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
