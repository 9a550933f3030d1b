"""What the HTTP and gRPC services share: problems, API keys, health routes, the two servers."""
