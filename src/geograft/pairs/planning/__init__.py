"""Which chips to cut, and which photos lie in each: from tables to a plan, zone by zone."""
