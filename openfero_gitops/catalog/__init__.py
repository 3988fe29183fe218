"""From a commit to the catalog, and to its mirror in ConfigMaps.

`build` turns a snapshot into a catalog, as a pure function: the same commit gives the same
catalog on every replica. The syncer swaps it in whole, the mirrorer writes the mirror. How files
are fetched is not decided here (sources), nor what happens to alerts (delivery).
"""
