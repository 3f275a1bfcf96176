"""The modules that users import."""

import minillmlib
import minillmlib.dask
import minillmlib.httpx
import minillmlib.local
import minillmlib.mcp
import minillmlib.otel
import minillmlib.ray
import minillmlib.testing

DOORS = (
    minillmlib,
    minillmlib.testing,
    minillmlib.local,
    minillmlib.httpx,
    minillmlib.mcp,
    minillmlib.dask,
    minillmlib.otel,
    minillmlib.ray,
)
