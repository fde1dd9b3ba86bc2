"""A private RabbitMQ node and S3 server on ports and in a folder of their own: for trying, tests and benchmarks."""
