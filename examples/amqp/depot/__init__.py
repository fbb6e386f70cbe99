"""An example of Patron on RabbitMQ: one topic exchange, two queues."""
