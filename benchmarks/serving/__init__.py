"""The service under load, beside other servers."""
