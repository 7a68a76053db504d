"""How noctule is run: settings, the command, the embedded Kafka, container files."""
