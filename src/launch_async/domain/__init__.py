"""Facts and rules of launching, pure: no I/O, no clock, no third-party client."""
