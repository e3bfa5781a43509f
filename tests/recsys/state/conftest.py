from redis_server import make_server, shared_server  # noqa: F401 - fixtures
