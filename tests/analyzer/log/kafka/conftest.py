from tests.kafka import broker

__all__ = ["broker"]
