"""The pure heart: values and rules. No I/O, no clock, no logging; time and keys come in as arguments."""
