"""What a run will cost, told before it is run."""

from baffle.planning.findings import measured
from baffle.planning.forecast import Forecast, forecast

__all__ = ["Forecast", "forecast", "measured"]
