"""What runs in the sidecar: makes the namespace capture and hands its sockets to the test process.

Standard library only and relative imports only, so that the folder also runs as the top-level
package `agent` that it is inside the sidecar. It imports little: each start of a container waits
for it. `packets` is the exception, since only the test process reads it.
"""
