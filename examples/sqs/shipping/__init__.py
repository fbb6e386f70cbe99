"""A small service that ships parcels, on SNS and SQS."""
