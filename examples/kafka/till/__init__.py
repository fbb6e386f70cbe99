"""An example of Patron on Kafka: one topic, two groups."""
