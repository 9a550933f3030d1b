"""Query drift compensation: carrying query vectors of a new embedding space into an older one.

Pure: arrays in, arrays out. Every compensator is fitted directly from the current space to one older space;
chains of maps lose quality with each link and are not offered.
"""
