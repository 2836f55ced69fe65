"""What captioning costs: latencies, cold starts, memory."""
