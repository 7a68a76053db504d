"""noctule: reads the Rubin alert stream, says what each alert probably is and how certain that is.

The names that a user imports; each is documented where it is defined.
"""

from deploy.front import __version__ as __version__
from deploy.front import load_model
from lightcurves.alerts import read_alerts
from lightcurves.features.table import compute_features
from lightcurves.folders import read_light_curves
from portal.client import Client

__all__ = ["Client", "compute_features", "load_model", "read_alerts", "read_light_curves"]
