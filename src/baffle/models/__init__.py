"""The paper's networks, and a user's own. Importing this imports no torch: call `baffle.models.build.build`."""
