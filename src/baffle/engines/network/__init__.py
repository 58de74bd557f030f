"""A federation of machines: clients that join, keep in step and answer; a server that loses nothing.

`dialogue` has what they say to each other, `hub` the server's half and `member` a client's. What carries the bytes is
beside them: `zenoh` between machines, `loopback` in one process, with faults.
"""
