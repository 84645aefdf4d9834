"""How many triples the named files have."""

import sys

from rdflib import Graph

for name in sys.argv[1:]:
    print(f"{name}: {len(Graph().parse(name))} triples")
