"""Pure functions of retrieval: chunking, filters, evaluation measures. No I/O."""
